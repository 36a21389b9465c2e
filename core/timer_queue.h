// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace lockfs {

/// The time since boot. Unlike the steady clock it goes on while the host sleeps, so what had its
/// time meanwhile (a ttl, a lease) has ended before anything else is done.
struct Clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Clock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};
using TimePoint = Clock::time_point;
using Duration = std::chrono::nanoseconds;

/// Names a timer; kNone is never scheduled.
enum class TimerId : uint64_t { kNone = 0 };

/// Timers and the time itself, as the core sees it: now() moves only by advance(), which the loop
/// calls before each request, so that a request sees one time and tests can choose it.
/// Schedule, cancel and fire are O(log n). For one thread.
class TimerQueue {
 public:
  TimePoint now() const { return now_; }
  void set_now(TimePoint now) { now_ = now; }

  /// Runs `action` once, in the first advance() at or after `when`; never within this call.
  TimerId schedule(TimePoint when, std::function<void()> action);
  /// Does nothing when it has run already.
  void cancel(TimerId id);
  /// Moves the time to `now` (never back) and runs what is due, earliest first.
  void advance(TimePoint now);
  /// When the next timer is due.
  std::optional<TimePoint> next() const;

 private:
  struct Timer {
    TimePoint when;
    std::function<void()> action;
  };
  TimePoint now_{};
  uint64_t last_id_ = 0;
  std::map<uint64_t, Timer> timers_;
  std::set<std::pair<TimePoint, uint64_t>> due_;
};

}  // namespace lockfs
