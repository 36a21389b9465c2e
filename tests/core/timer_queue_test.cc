// SPDX-License-Identifier: MIT
#include "core/timer_queue.h"

#include <gtest/gtest.h>

#include <string>

namespace lockfs {
namespace {

using std::chrono::seconds;

TimePoint at(int second) { return TimePoint(seconds(second)); }

TEST(TimerQueue, RunsWhatIsDueEarliestFirstAndOnce) {
  TimerQueue timers;
  std::string ran;
  timers.schedule(at(3), [&] { ran += 'c'; });
  timers.schedule(at(1), [&] { ran += 'a'; });
  timers.schedule(at(2), [&] { ran += 'b'; });
  timers.advance(at(2));
  EXPECT_EQ(ran, "ab");
  timers.advance(at(9));
  timers.advance(at(10));
  EXPECT_EQ(ran, "abc");
}

TEST(TimerQueue, RunsThoseOfOneTimeInTheOrderTheyWereSet) {
  TimerQueue timers;
  std::string ran;
  for (const char c : {'a', 'b', 'c'}) timers.schedule(at(1), [&ran, c] { ran += c; });
  timers.advance(at(1));
  EXPECT_EQ(ran, "abc");
}

TEST(TimerQueue, ATimerInThePastRunsInTheNextAdvanceAndNotBefore) {
  TimerQueue timers;
  timers.set_now(at(5));
  bool ran = false;
  timers.schedule(at(1), [&] { ran = true; });
  EXPECT_FALSE(ran);
  timers.advance(at(5));
  EXPECT_TRUE(ran);
}

TEST(TimerQueue, ACancelledTimerDoesNotRun) {
  TimerQueue timers;
  int ran = 0;
  const TimerId id = timers.schedule(at(1), [&] { ran += 1; });
  timers.schedule(at(1), [&] { ran += 10; });
  timers.cancel(id);
  timers.cancel(id);
  timers.cancel(TimerId::kNone);
  timers.advance(at(2));
  EXPECT_EQ(ran, 10);
}

TEST(TimerQueue, ATimerMayCancelOneThatIsDueAtTheSameTime) {
  TimerQueue timers;
  bool ran = false;
  TimerId victim = TimerId::kNone;
  timers.schedule(at(1), [&] { timers.cancel(victim); });
  victim = timers.schedule(at(1), [&] { ran = true; });
  timers.advance(at(1));
  EXPECT_FALSE(ran);
  EXPECT_EQ(timers.next(), std::nullopt);
}

TEST(TimerQueue, ATimerMaySetAnother) {
  TimerQueue timers;
  std::string ran;
  timers.schedule(at(1), [&] {
    ran += 'a';
    timers.schedule(at(2), [&] { ran += 'b'; });
    timers.schedule(at(4), [&] { ran += 'c'; });
  });
  timers.advance(at(3));
  EXPECT_EQ(ran, "ab");
  EXPECT_EQ(timers.next(), at(4));
}

TEST(TimerQueue, TimeNeverGoesBack) {
  TimerQueue timers;
  timers.advance(at(5));
  timers.advance(at(3));
  EXPECT_EQ(timers.now(), at(5));
}

TEST(TimerQueue, ATimerSeesTheTimeOfTheAdvance) {
  TimerQueue timers;
  TimePoint seen{};
  timers.schedule(at(1), [&] { seen = timers.now(); });
  timers.advance(at(7));
  EXPECT_EQ(seen, at(7));
}

TEST(TimerQueue, NextIsTheEarliest) {
  TimerQueue timers;
  EXPECT_EQ(timers.next(), std::nullopt);
  timers.schedule(at(4), [] {});
  const TimerId first = timers.schedule(at(2), [] {});
  EXPECT_EQ(timers.next(), at(2));
  timers.cancel(first);
  EXPECT_EQ(timers.next(), at(4));
}

}  // namespace
}  // namespace lockfs
