// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "core/event_loop.h"

namespace lockfs {

/// How a thread that may outlive its backend posts into the loop: once closed, nothing it posts
/// runs any more, and the loop is not touched.
class Outlet : public std::enable_shared_from_this<Outlet> {
 public:
  explicit Outlet(EventLoop& loop) : loop_(&loop) {}
  /// From any thread.
  void post(std::function<void()> work) {
    const std::lock_guard guard(mutex_);
    if (loop_ == nullptr) return;
    loop_->post([self = shared_from_this(), work = std::move(work)] {
      if (self->loop_ != nullptr) work();  // It is written on this thread only.
    });
  }
  /// Runs `work` once, so much later. On the loop's thread.
  void after(Duration time, std::function<void()> work) {
    loop_->timers.schedule(loop_->timers.now() + time,
                           [self = shared_from_this(), work = std::move(work)] {
                             if (self->loop_ != nullptr) work();
                           });
  }
  /// On the loop's thread.
  void close() {
    const std::lock_guard guard(mutex_);
    loop_ = nullptr;
  }

 private:
  std::mutex mutex_;
  EventLoop* loop_;
};

}  // namespace lockfs
