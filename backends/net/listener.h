// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "backends/net/stream.h"
#include "core/event_loop.h"
#include "system/spare_descriptor.h"

namespace lockfs::net {

/// A port that others connect to, on the loop. Whom no descriptor is left for is hung up on.
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
  void watch();
  bool accept_one();
  bool hang_up_on_one();
  void rest();

  EventLoop& loop_;
  int fd_;
  SpareDescriptor spare_;  ///< To hang up with.
  TimerId resting_ = TimerId::kNone;
  Accepted accepted_;
};

}  // namespace lockfs::net
