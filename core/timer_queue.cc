// SPDX-License-Identifier: MIT
#include "core/timer_queue.h"

#include <time.h>

#include <utility>

namespace lockfs {

TimePoint Clock::now() noexcept {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return TimePoint(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

TimerId TimerQueue::schedule(TimePoint when, std::function<void()> action) {
  const uint64_t id = ++last_id_;
  timers_.emplace(id, Timer{when, std::move(action)});
  due_.emplace(when, id);
  return static_cast<TimerId>(id);
}

void TimerQueue::cancel(TimerId id) {
  const auto timer = timers_.find(static_cast<uint64_t>(id));
  if (timer == timers_.end()) return;
  due_.erase({timer->second.when, timer->first});
  timers_.erase(timer);
}

void TimerQueue::advance(TimePoint now) {
  if (now > now_) now_ = now;
  while (!due_.empty() && due_.begin()->first <= now_) {
    auto timer = timers_.extract(due_.begin()->second);
    due_.erase(due_.begin());
    timer.mapped().action();
  }
}

std::optional<TimePoint> TimerQueue::next() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first;
}

}  // namespace lockfs
