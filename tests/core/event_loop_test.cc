// SPDX-License-Identifier: MIT
#include "core/event_loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace lockfs {
namespace {

using std::chrono::milliseconds;

/// A descriptor that is readable as often as told.
class Source {
 public:
  ~Source() { close(fd); }
  void ring(uint64_t times = 1) const { ASSERT_EQ(write(fd, &times, sizeof times), 8); }
  bool take() const {
    uint64_t one = 0;
    return read(fd, &one, sizeof one) == 8;
  }
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
};

TEST(EventLoop, RunsWhatWasPostedInOrder) {
  EventLoop loop;
  std::string ran;
  loop.post([&] { ran += 'a'; });
  loop.post([&] {
    ran += 'b';
    loop.post([&] {
      ran += 'd';
      loop.stop();
    });
  });
  loop.post([&] { ran += 'c'; });
  loop.run();
  EXPECT_EQ(ran, "abcd");
}

TEST(EventLoop, TakesAllThatManyThreadsPostAndKeepsEachThreadsOrder) {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  EventLoop loop;
  std::vector<int> last(kThreads, -1);
  int total = 0;
  int disorders = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop.post([&, t, i] {
          int& before = last[static_cast<size_t>(t)];
          if (before != i - 1) ++disorders;
          before = i;
          if (++total == kThreads * kEach) loop.stop();
        });
      }
    });
  }
  loop.run();
  EXPECT_EQ(total, kThreads * kEach);
  EXPECT_EQ(disorders, 0);
}

TEST(EventLoop, APostWakesALoopThatSleeps) {
  EventLoop loop;
  std::atomic<int> sleeps = 0;
  loop.before_sleep([&] {
    ++sleeps;
    sleeps.notify_one();
  });
  std::jthread other([&] {
    sleeps.wait(0);
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  EXPECT_GE(sleeps, 1);
}

TEST(EventLoop, PostedWorkRunsOnTheLoopsThread) {
  EventLoop loop;
  std::thread::id where;
  std::jthread other([&] {
    loop.post([&] {
      where = std::this_thread::get_id();
      loop.stop();
    });
  });
  loop.run();
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST(EventLoop, TimersRunWhenTheyAreDueAndNotBefore) {
  EventLoop loop;
  const TimePoint start = Clock::now();
  std::string ran;
  loop.timers.schedule(start + milliseconds(20), [&] {
    ran += 'b';
    EXPECT_GE(Clock::now(), start + milliseconds(20));
    loop.stop();
  });
  loop.timers.schedule(start + milliseconds(5), [&] {
    ran += 'a';
    EXPECT_GE(Clock::now(), start + milliseconds(5));
  });
  loop.run();
  EXPECT_EQ(ran, "ab");
}

TEST(EventLoop, AWatchedDescriptorIsCalledUntilItHasNothing) {
  EventLoop loop;
  const Source source;
  int taken = 0;
  loop.watch(source.fd, [&] {
    if (!source.take()) return false;
    if (++taken == 5) loop.stop();
    return true;
  });
  source.ring(5);
  loop.run();
  EXPECT_EQ(taken, 5);
}

TEST(EventLoop, AnUnwatchedDescriptorIsNotCalled) {
  EventLoop loop;
  const Source source;
  int calls = 0;
  loop.watch(source.fd, [&] {
    ++calls;
    return source.take();
  });
  source.ring();
  loop.unwatch(source.fd);
  loop.post([&] { loop.post([&] { loop.stop(); }); });
  loop.run();
  EXPECT_EQ(calls, 0);
}

TEST(EventLoop, ASourceMayUnwatchItself) {
  EventLoop loop;
  const Source source;
  std::vector<int> calls;
  const std::string captured(100, 'x');  // Gone with the callback, if that is gone too early.
  loop.watch(source.fd, [&, captured] {
    loop.unwatch(source.fd);
    calls.push_back(static_cast<int>(captured.size()));
    loop.post([&] { loop.stop(); });
    return true;
  });
  source.ring(3);
  loop.run();
  EXPECT_EQ(calls, std::vector<int>{100});
}

TEST(EventLoop, APolledSourceDoesNotStarveTimersNorPosts) {
  EventLoop loop;
  const Source source;
  loop.watch(source.fd, [&] {  // Has always something.
    source.take();
    source.ring();
    return true;
  });
  loop.poll_first(source.fd, milliseconds(50));
  source.ring();
  bool posted = false;
  loop.post([&] { posted = true; });
  loop.timers.schedule(Clock::now() + milliseconds(5), [&] { loop.stop(); });
  loop.run();
  EXPECT_TRUE(posted);
}

TEST(EventLoop, APolledSourceIsServedAndTheLoopSleepsWhenItIsQuiet) {
  EventLoop loop;
  const Source source;
  int taken = 0;
  loop.watch(source.fd, [&] {
    if (!source.take()) return false;
    ++taken;
    return true;
  });
  loop.poll_first(source.fd, milliseconds(1));
  source.ring(200);
  loop.before_sleep([&] {
    EXPECT_EQ(taken, 200) << "asleep with work left";
    loop.stop();
  });
  loop.post([] {});  // So that the one sleep ends.
  loop.run();
  EXPECT_EQ(taken, 200);
}

TEST(EventLoop, WhatIsPostedAfterTheEndRunsInTheDestructor) {
  bool ran = false;
  {
    EventLoop loop;
    loop.post([&] { loop.stop(); });
    loop.run();
    loop.post([&] { ran = true; });
  }
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace lockfs
