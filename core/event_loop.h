// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <functional>
#include <unordered_map>

#include "core/timer_queue.h"

namespace lockfs {

/// The one loop that owns the core: descriptors, timers, and what other threads post. Everything
/// it calls runs on the thread in run().
class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  TimerQueue timers;

  /// Calls `ready` whenever `fd` can be read. It should take all there is; returns whether there
  /// was anything.
  void watch(int fd, std::function<bool()> ready);
  void unwatch(int fd);
  /// Runs `work` soon on the loop's thread. The only call that any thread may make.
  void post(std::function<void()> work);
  /// Runs `work` each time before the loop sleeps.
  void before_sleep(std::function<void()> work) { before_sleep_ = std::move(work); }
  /// A source that is asked again and again, for `poll_time`, before the loop sleeps.
  void poll_first(int fd, Duration poll_time);

  void run();
  void stop() { stopped_ = true; }

 private:
  struct Posted {
    std::function<void()> work;
    Posted* next = nullptr;
  };
  void take_posted();
  void wait();
  bool spin();

  int epoll_ = -1;
  int wake_ = -1;
  bool stopped_ = false;
  std::atomic<Posted*> posted_ = nullptr;
  std::unordered_map<int, std::function<bool()>> watched_;
  std::function<void()> before_sleep_;
  int polled_ = -1;
  Duration poll_time_{};
};

}  // namespace lockfs
