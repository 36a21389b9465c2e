// SPDX-License-Identifier: MIT
// What a lock promises to the holders of several nodes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <string>

#include "core/mode.h"
#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedLock : public ContractTest {};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedLock, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

constexpr std::array kModes = {Mode::kNL, Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};

std::string try_for(Mode mode) { return std::string(mode_name(mode)) + " try"; }

TEST_P(SharedLock, OneNodeHoldsAndTheOtherIsRefused) {
  const int held = open(lock(0, "one").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
  ASSERT_GE(held, 0);
  EXPECT_EQ(open(lock(1, "one").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666), -1);
  EXPECT_EQ(errno, EEXIST);
  close(held);
  int next = -1;
  EXPECT_TRUE(eventually([&] {
    next = open(lock(1, "one").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
    return next >= 0;
  }));
  close(next);
}

TEST_P(SharedLock, EveryPairOfModesIsThatOfTheDlm) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  for (const Mode held : kModes) {
    for (const Mode wanted : kModes) {
      const std::string name = std::string(mode_name(held)) + std::string(mode_name(wanted));
      ASSERT_EQ(write_command(open_lock(0, name), std::string(mode_name(held))), 0);
      EXPECT_EQ(write_command(open_lock(1, name), try_for(wanted)),
                compatible(held, wanted) ? 0 : EAGAIN)
          << mode_name(wanted) << " beside " << mode_name(held);
    }
  }
}

TEST_P(SharedLock, AWaiterIsGrantedWhenTheOtherNodeReleases) {
  const int holder = open_lock(0, "wait");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child waiter([&] {
    const int fd = open(lock(1, "wait").c_str(), O_RDWR | O_CREAT, 0666);
    return write_command(fd, "EX timeout=20s");
  });
  ASSERT_TRUE(eventually([&] {
    return slurp(lock(1, "wait")).find("waiting:") != std::string::npos;
  })) << slurp(lock(1, "wait"));
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(waiter.wait(), 0);
}

TEST_P(SharedLock, AWaitEndsAtItsTimeoutAndLeavesNothing) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int holder = open_lock(0, "late");
  ASSERT_EQ(write_command(holder, "PR"), 0);
  const int late = open_lock(1, "late");
  Child waiter([&] { return write_command(late, "EX timeout=50ms"); });
  EXPECT_EQ(waiter.wait(), ETIMEDOUT);
  EXPECT_EQ(write_command(late, "PR try"), 0);
  ASSERT_EQ(write_command(late, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return write_command(holder, "EX try") == 0; }));
}

TEST_P(SharedLock, ARefusedConversionKeepsWhatWasHeld) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int one = open_lock(0, "convert");
  const int two = open_lock(1, "convert");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "PR"), 0);
  EXPECT_EQ(write_command(one, "EX try"), EAGAIN);
  EXPECT_EQ(write_command(two, "EX try"), EAGAIN) << "PR of the other node must still count";
  ASSERT_EQ(write_command(two, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return write_command(one, "EX try") == 0; }));
  EXPECT_EQ(write_command(two, "CR try"), EAGAIN);
}

TEST_P(SharedLock, AWeakenedLockLetsOthersIn) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int one = open_lock(0, "weaken");
  const int two = open_lock(1, "weaken");
  ASSERT_EQ(write_command(one, "EX"), 0);
  ASSERT_EQ(write_command(two, "PR try"), EAGAIN);
  ASSERT_EQ(write_command(one, "PR"), 0);
  EXPECT_EQ(write_command(two, "PR timeout=10s"), 0);
}

TEST_P(SharedLock, OfTwoConversionsThatBlockEachOtherOneIsRefused) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int one = open_lock(0, "dead");
  const int two = open_lock(1, "dead");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "PR"), 0);
  const auto convert = [](int fd) {
    const int result = write_command(fd, "EX timeout=20s");
    if (result == EDEADLK) write_command(fd, "UN");
    return result;
  };
  Child first([&] { return convert(one); });
  Child second([&] { return convert(two); });
  const int results[] = {first.wait(), second.wait()};
  EXPECT_THAT(results, testing::UnorderedElementsAre(0, EDEADLK));
}

TEST_P(SharedLock, TokensGrowFromNodeToNodeAndOverRestarts) {
  uint64_t last = 0;
  for (int i = 0; i < 40; ++i) {
    const int fd = open(lock(i % 2, "token").c_str(), O_RDWR | O_CREAT, 0666);
    ASSERT_EQ(write_command(fd, "EX timeout=10s"), 0);
    const uint64_t token = token_of(fd);
    EXPECT_GT(token, last);
    last = token;
    close(fd);
  }
  restart_node(0);
  const int fd = open_lock(0, "token");
  ASSERT_EQ(write_command(fd, "EX timeout=10s"), 0);
  EXPECT_GT(token_of(fd), last);
}

TEST_P(SharedLock, AKilledDaemonsLocksAreFreeWhenTheyShallBe) {
  if (!world().separate_nodes()) GTEST_SKIP() << "one mount has no other";
  ASSERT_EQ(write_command(open_lock(0, "killed"), "EX"), 0);
  const int waiter = open_lock(1, "killed");
  ASSERT_EQ(write_command(waiter, "EX try"), EAGAIN);
  kill_node(0);
  const auto time = static_cast<int>(world().takeover() * 1000);
  EXPECT_EQ(write_command(waiter, "EX timeout=" + std::to_string(time) + "ms"), 0);
}

TEST_P(SharedLock, AKilledWaiterIsNotGranted) {
  const int holder = open_lock(0, "gone");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  {
    Child waiter(
        [&] { return write_command(open(lock(1, "gone").c_str(), O_RDWR | O_CREAT, 0666), "EX"); });
    ASSERT_TRUE(
        eventually([&] { return slurp(lock(1, "gone")).find("waiting:") != std::string::npos; }));
  }
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(write_command(holder, "EX timeout=10s"), 0);
}

// Four processes on two nodes add to a number that only the lock protects.
TEST_P(SharedLock, NothingIsEverGrantedTwice) {
  constexpr int kTimes = 100;
  const std::string file = node(0).path() + ".count";
  std::ofstream(file) << 0 << std::flush;
  const auto add = [&](size_t at) {
    for (int i = 0; i < kTimes; ++i) {
      const int fd = open(lock(at, "count").c_str(), O_RDWR | O_CREAT, 0666);
      if (const int wrong = write_command(fd, "EX timeout=60s"); wrong != 0) return wrong;
      int value = 0;
      std::ifstream(file) >> value;
      std::ofstream(file) << value + 1 << std::flush;
      close(fd);
    }
    return 0;
  };
  {
    Child a([&] { return add(0); });
    Child b([&] { return add(1); });
    Child c([&] { return add(0); });
    Child d([&] { return add(1); });
    for (Child* child : {&a, &b, &c, &d}) EXPECT_EQ(child->wait(), 0);
  }
  EXPECT_EQ(slurp(file), std::to_string(4 * kTimes));
  unlink(file.c_str());
}

}  // namespace
}  // namespace lockfs::test
