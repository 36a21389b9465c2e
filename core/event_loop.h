// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <functional>
#include <unordered_map>
#include <vector>

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

  /// Calls `ready` whenever `fd` can be read; it returns whether there was anything, and is called
  /// again if it leaves something.
  void watch(int fd, std::function<bool()> ready);
  /// Whether `ready` of a watched descriptor is also called when it can be written.
  void watch_writes(int fd, bool wanted);
  /// A source may unwatch itself.
  void unwatch(int fd);
  /// Runs `work` soon on the loop's thread. The only call that any thread may make.
  void post(std::function<void()> work);
  /// Runs `work` each time before the loop sleeps.
  void before_sleep(std::function<void()> work) { before_sleep_ = std::move(work); }
  /// A watched source that is asked again and again before the loop sleeps, until it has had
  /// nothing for `poll_time`. Zero: not at all.
  void poll_first(int fd, Duration poll_time);

  void run();
  void stop() { stopped_ = true; }

 private:
  struct Posted {
    std::function<void()> work;
    Posted* next = nullptr;
  };
  bool take_posted();
  void wait(bool busy);
  bool spin();

  int epoll_ = -1;
  int wake_ = -1;
  bool stopped_ = false;
  std::atomic<Posted*> posted_ = nullptr;
  using Sources = std::unordered_map<int, std::function<bool()>>;
  Sources watched_;
  std::vector<Sources::node_type> unwatched_;
  std::function<void()> before_sleep_;
  int polled_ = -1;
  Duration poll_time_{};
};

}  // namespace lockfs
