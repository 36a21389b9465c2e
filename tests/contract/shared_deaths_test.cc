// SPDX-License-Identifier: MIT
// Daemons that die, and what becomes of what their nodes held and waited for.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <set>
#include <string>

#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

using Clock = std::chrono::steady_clock;

class SharedDeaths : public ContractTest {
 protected:
  void SetUp() override {
    if (!world().separate_nodes()) GTEST_SKIP() << "one mount has no other";
  }
  // What a node tells programs first.
  std::string first_of_json(size_t i) {
    return picture_value(slurp(node(i).path() + "/.lockfs/locks.json"), "locks.0.lock");
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedDeaths, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

TEST_P(SharedDeaths, AWaiterHasADeadNodesLockWithinASecond) {
  const Common<std::atomic<Clock::time_point>> granted;
  ASSERT_EQ(write_command(open_lock(0, "heir"), "EX"), 0);
  Child waiter([&, path = lock(1, "heir")] {
    const int result = ask(path, "EX timeout=60s");
    *granted = Clock::now();
    return result;
  });
  ASSERT_TRUE(eventually_waiting(0, "heir", 1));
  const auto death = Clock::now();
  kill_node(0);
  EXPECT_EQ(end_of(waiter), 0);
  EXPECT_LT(granted->load() - death, std::chrono::duration<double>(world().takeover()));
}

TEST_P(SharedDeaths, ADeadNodesShareIsNoObstacle) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int left = open_lock(1, "share");
  ASSERT_EQ(write_command(open_lock(0, "share"), "PR"), 0);
  ASSERT_EQ(write_command(left, "PR"), 0);
  Child converts([&] { return write_command(left, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "share", 1));
  kill_node(0);
  EXPECT_EQ(end_of(converts), 0);
}

TEST_P(SharedDeaths, ADeadNodesWaiterIsPassed) {
  const size_t third = add_node();
  const int holder = open_lock(1, "passed");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child dead([path = lock(0, "passed")] { return ask(path, "EX"); });
  ASSERT_TRUE(eventually_waiting(1, "passed", 1));
  Child next([path = lock(third, "passed")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "passed", 2));
  kill_node(0);
  EXPECT_NE(end_of(dead), 0) << "its call fails, and is not granted";
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(end_of(next), 0);
}

TEST_P(SharedDeaths, WhoWaitedBehindADeadNodesWaiterAloneGoesAtOnce) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const size_t third = add_node();
  ASSERT_EQ(write_command(open_lock(1, "alone"), "PR"), 0);
  Child dead([path = lock(0, "alone")] { return ask(path, "EX"); });
  ASSERT_TRUE(eventually_waiting(1, "alone", 1));
  Child next([path = lock(third, "alone")] { return ask(path, "PR timeout=60s"); });
  if (world().fifo()) {
    ASSERT_TRUE(eventually_waiting(1, "alone", 2));
  }
  kill_node(0);
  EXPECT_EQ(end_of(next), 0);
  EXPECT_NE(end_of(dead), 0);
}

TEST_P(SharedDeaths, ADeadNodesConversionIsNoObstacle) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int converts = open_lock(0, "converts");
  const int holder = open_lock(1, "converts");
  ASSERT_EQ(write_command(converts, "PR"), 0);
  ASSERT_EQ(write_command(holder, "CR"), 0);
  Child dead([&] { return write_command(converts, "EX"); });
  ASSERT_TRUE(eventually_waiting(1, "converts", 1));
  kill_node(0);
  EXPECT_NE(end_of(dead), 0);
  ASSERT_TRUE(eventually_waiting(1, "converts", 0)) << "until then it is a deadlock";
  EXPECT_EQ(write_command(holder, "EX timeout=10s"), 0);
}

TEST_P(SharedDeaths, TwoNodesMayDieAtOnce) {
  const size_t third = add_node();
  ASSERT_EQ(write_command(open_lock(0, "two"), "EX"), 0);
  Child dead([path = lock(third, "two")] { return ask(path, "EX"); });
  ASSERT_TRUE(eventually_waiting(0, "two", 1));
  Child next([path = lock(1, "two")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "two", 2));
  kill_node(third);
  kill_node(0);
  EXPECT_EQ(end_of(next), 0);
  EXPECT_NE(end_of(dead), 0);
}

TEST_P(SharedDeaths, WhenAllNodesHaveDiedEverythingIsFreeAndTokensGoOn) {
  const int held = open_lock(0, "all");
  ASSERT_EQ(write_command(held, "EX"), 0);
  ASSERT_EQ(write_command(open_lock(1, "other"), "PR"), 0);
  const uint64_t token = token_of(held);
  if (world().sees_others()) {
    ASSERT_TRUE(sees([&] { return listed(0) == listed(1); }));
  }
  kill_node(0);
  kill_node(1);
  restart_node(0);
  restart_node(1);
  EXPECT_EQ(write_command(open_lock(0, "other"), "EX timeout=10s"), 0);
  const int again = open_lock(1, "all");
  EXPECT_EQ(write_command(again, "EX timeout=10s"), 0);
  EXPECT_GT(token_of(again), token);
}

TEST_P(SharedDeaths, AnUnmountedNodesLocksAreFree) {
  ASSERT_EQ(write_command(open_lock(0, "unmounted"), "EX"), 0);
  const int left = open_lock(1, "unmounted");
  ASSERT_EQ(write_command(left, "EX try"), EAGAIN);
  restart_node(0);
  EXPECT_EQ(write_command(left, "EX timeout=10s"), 0);
}

TEST_P(SharedDeaths, ARestartedNodeFindsWhatTheOthersHold) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  ASSERT_EQ(write_command(open_lock(1, "found"), "PR note=here"), 0);
  kill_node(0);
  restart_node(0);
  EXPECT_EQ(listed(0), std::set<std::string>{"found"});
  EXPECT_TRUE(eventually([&] { return shown(0, "found", "holders.0.note") == "here"; }));
  const int next = open_lock(0, "found");
  EXPECT_EQ(write_command(next, "EX try"), EAGAIN);
  EXPECT_EQ(write_command(next, "PR try"), 0);
}

TEST_P(SharedDeaths, NothingOfADeadNodeIsShown) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  for (const char* mode : {"CR", "CW", "PR", "PW", "EX"}) {
    ASSERT_EQ(write_command(open_lock(0, mode), mode), 0);
  }
  const int holder = open_lock(1, "here");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child waiter([path = lock(0, "here")] { return ask(path, "EX"); });
  ASSERT_TRUE(eventually_waiting(1, "here", 1));
  const std::set<std::string> all = {"CR", "CW", "EX", "PR", "PW", "here"};
  ASSERT_TRUE(sees([&] { return listed(1) == all; })) << testing::PrintToString(listed(1));
  kill_node(0);
  EXPECT_TRUE(
      eventually([&] { return listed(1) == std::set<std::string>{"here"}; }, world().takeover()))
      << testing::PrintToString(listed(1));
  EXPECT_TRUE(eventually_waiting(1, "here", 0)) << picture(1, "here");
  EXPECT_EQ(first_of_json(1), "here");
  ASSERT_EQ(write_command(holder, "UN"), 0);
  restart_node(0);
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(eventually([&] { return listed(i).empty(); })) << testing::PrintToString(listed(i));
    EXPECT_EQ(first_of_json(i), "");
  }
}

TEST_P(SharedDeaths, AStoppedDaemonThatHasNothingStopsNobody) {
  const size_t third = add_node();
  {
    const Stopped stopped(node(0).daemon());
    for (int i = 0; i < 100; ++i) {
      const int fd = open(lock(i % 2 == 0 ? 1 : third, "idle").c_str(), O_RDWR | O_CREAT, 0666);
      ASSERT_EQ(write_command(fd, "EX timeout=10s"), 0);
      close(fd);
    }
    const int holder = open_lock(1, "idle");
    ASSERT_EQ(write_command(holder, "PW timeout=10s"), 0);
    Child waiter([path = lock(third, "idle")] { return ask(path, "EX timeout=60s"); });
    ASSERT_TRUE(eventually_waiting(1, "idle", 1));
    EXPECT_THAT(listed(third), testing::ElementsAre("idle"));
    EXPECT_EQ(first_of_json(third), "idle");
    ASSERT_EQ(write_command(holder, "UN"), 0);
    EXPECT_EQ(end_of(waiter), 0);
  }
  EXPECT_EQ(write_command(open_lock(0, "idle"), "EX timeout=10s"), 0);
}

TEST_P(SharedDeaths, ADeathIsSeenThoughAnotherDaemonIsStopped) {
  const size_t third = add_node();
  ASSERT_EQ(write_command(open_lock(0, "seen"), "EX"), 0);
  Child waiter([path = lock(1, "seen")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "seen", 1));
  const Stopped stopped(node(third).daemon());
  kill_node(0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_P(SharedDeaths, AStoppedDaemonKeepsWhatItHoldsAndGoesOn) {
  const int holder = open_lock(0, "kept");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  const int other = open_lock(1, "kept");
  Child waiter([path = lock(1, "kept")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "kept", 1));
  {
    const Stopped stopped(node(0).daemon());
    EXPECT_EQ(write_command(other, "PR timeout=300ms"), ETIMEDOUT);
  }
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_P(SharedDeaths, AStoppedDaemonThatWaitsHasItsTurnWhenItGoesOn) {
  const int holder = open_lock(1, "turn");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child waiter([path = lock(0, "turn")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "turn", 1));
  {
    const Stopped stopped(node(0).daemon());
    ASSERT_EQ(write_command(holder, "UN"), 0);
  }
  EXPECT_EQ(end_of(waiter), 0);
  EXPECT_EQ(write_command(holder, "EX timeout=10s"), 0);
}

}  // namespace
}  // namespace lockfs::test
