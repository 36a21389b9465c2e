// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <thread>
#include <utility>

#include "backends/worker_thread.h"
#include "core/event_loop.h"

namespace lockfs {

/// A thread of a backend with a loop of its own, for calls that wait: what is posted runs in order.
class LoopThread {
 public:
  LoopThread() : thread_(worker_thread([this] { loop_.run(); })) {}
  /// Runs what was posted, then ends.
  ~LoopThread() {
    loop_.post([this] { loop_.stop(); });
    thread_.join();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  /// Of its own thread.
  EventLoop& loop() { return loop_; }
  /// From any thread.
  void post(std::function<void()> work) { loop_.post(std::move(work)); }

 private:
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace lockfs
