// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "backends/net/stream.h"
#include "core/event_loop.h"

namespace lockfs::net {

/// A port that others connect to, on the loop.
class Listener {
 public:
  /// Gets each connection, which does not block; it is the callee's to close.
  using Accepted = std::function<void(int fd)>;

  /// Waits for the name to be resolved: at the start only. What is wrong, in words.
  static tl::expected<std::unique_ptr<Listener>, std::string> open(EventLoop& loop,
                                                                   const Endpoint& at,
                                                                   Accepted accepted);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

 private:
  Listener(EventLoop& loop, int fd, Accepted accepted);
  bool accept_one();

  EventLoop& loop_;
  int fd_;
  Accepted accepted_;
};

}  // namespace lockfs::net
