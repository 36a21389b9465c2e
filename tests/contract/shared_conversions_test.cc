// SPDX-License-Identifier: MIT
// Conversions beside the holders and waiters of other nodes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>

#include "core/mode.h"
#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedConversions : public ContractTest {
 protected:
  void SetUp() override {
    if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedConversions, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

constexpr std::array kModes = {Mode::kNL, Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};

std::string words(Mode mode) { return std::string(mode_name(mode)); }

// Whether the other node is refused exactly what stands against `held`.
testing::AssertionResult excludes_as(Mode held, Mode beside, int probe) {
  for (const Mode mode : kModes) {
    const bool fits = compatible(held, mode) && compatible(beside, mode);
    int result = 0;
    const auto attempt = [&] {
      result = write_command(probe, words(mode) + " try");
      write_command(probe, "UN");
      return result == (fits ? 0 : EAGAIN);
    };
    // What was given up is given back a moment later; what is held excludes at once.
    if (fits ? eventually(attempt) : attempt()) continue;
    return testing::AssertionFailure() << words(mode) << ": errno " << result;
  }
  return testing::AssertionSuccess();
}

TEST_P(SharedConversions, EachConversionBesideEachModeOfTheOtherNode) {
  const int converts = open_lock(0, "all");
  const int beside = open_lock(1, "all");
  const int probe = open_lock(1, "all");
  for (const Mode from : kModes) {
    for (const Mode to : kModes) {
      for (const Mode other : kModes) {
        if (!compatible(from, other)) continue;
        SCOPED_TRACE(words(from) + " to " + words(to) + " beside " + words(other));
        ASSERT_EQ(write_command(converts, words(from) + " timeout=10s"), 0);
        ASSERT_EQ(write_command(beside, words(other) + " timeout=10s"), 0);
        const bool fits = compatible(to, other);
        const std::string attempt = words(to) + " try";
        if (fits) {  // What the round before gave up is given back a moment later.
          ASSERT_TRUE(eventually([&] { return write_command(converts, attempt) == 0; }));
        } else {
          ASSERT_EQ(write_command(converts, attempt), EAGAIN);
        }
        ASSERT_EQ(own(converts, "this.mode"), words(fits ? to : from));
        ASSERT_TRUE(excludes_as(fits ? to : from, other, probe));
        ASSERT_EQ(write_command(converts, "UN"), 0);
        ASSERT_EQ(write_command(beside, "UN"), 0);
      }
    }
  }
}

TEST_P(SharedConversions, AConversionWaitsForTheOtherNode) {
  const int one = open_lock(0, "waits");
  const int two = open_lock(1, "waits");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "CR"), 0);
  Child converts([&] { return write_command(one, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "waits", 1));
  EXPECT_EQ(shown(1, "waits", "holders_total"), "2") << picture(1, "waits");
  ASSERT_EQ(write_command(two, "UN"), 0);
  EXPECT_EQ(end_of(converts), 0);
  EXPECT_EQ(own(one, "this.mode"), "EX");
  EXPECT_EQ(write_command(two, "CR try"), EAGAIN);
}

TEST_P(SharedConversions, AConversionThatEndsAtItsTimeoutKeepsWhatWasHeld) {
  const int one = open_lock(0, "keeps");
  const int two = open_lock(1, "keeps");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "PR"), 0);
  Child converts([&] { return write_command(one, "EX timeout=50ms"); });
  EXPECT_EQ(end_of(converts), ETIMEDOUT);
  EXPECT_EQ(own(one, "this.mode"), "PR");
  EXPECT_EQ(write_command(two, "EX try"), EAGAIN) << "PR of the other node still counts";
  EXPECT_EQ(write_command(open_lock(1, "keeps"), "PR try"), 0) << "and nobody waits any more";
  EXPECT_EQ(write_command(two, "PW try"), EAGAIN);
}

TEST_P(SharedConversions, AConversionGoesBeforeANewRequestOfAnotherNode) {
  const size_t third = add_node();
  const int one = open_lock(0, "first");
  const int two = open_lock(1, "first");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "PR"), 0);
  Child asks([path = lock(third, "first")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "first", 1));
  Child converts([&] { return write_command(one, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "first", 2));
  ASSERT_EQ(write_command(two, "UN"), 0);
  EXPECT_EQ(end_of(converts), 0);
  EXPECT_EQ(shown(1, "first", "waiters_total"), "1") << picture(1, "first");
  ASSERT_EQ(write_command(one, "UN"), 0);
  EXPECT_EQ(end_of(asks), 0);
}

TEST_P(SharedConversions, WhoWaitedBehindAConversionThatIsInterruptedGoesAtOnce) {
  const size_t third = add_node();
  const int one = open_lock(0, "behind");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(open_lock(1, "behind"), "PR"), 0);
  Child converts([&] { return write_command(one, "EX"); });
  ASSERT_TRUE(eventually_waiting(1, "behind", 1));
  Child asks([path = lock(third, "behind")] { return ask(path, "PR timeout=60s"); });
  if (world().fifo()) {
    ASSERT_TRUE(eventually_waiting(1, "behind", 2));
  }
  converts.signal(SIGKILL);
  EXPECT_EQ(end_of(converts), 128 + SIGKILL);
  EXPECT_EQ(end_of(asks, 30), 0);
  EXPECT_EQ(own(one, "this.mode"), "PR") << "its descriptor is ours as well";
}

TEST_P(SharedConversions, AWeakenedLockLetsAWaiterOfTheOtherNodeIn) {
  for (const Mode to : {Mode::kNL, Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW}) {
    for (const Mode wanted : kModes) {
      if (!compatible(to, wanted) || wanted == Mode::kNL) continue;
      const std::string name = words(to) + words(wanted);
      const int holder = open_lock(0, name);
      ASSERT_EQ(write_command(holder, "EX"), 0);
      Child waiter([&, path = lock(1, name)] { return ask(path, words(wanted) + " timeout=60s"); });
      ASSERT_TRUE(eventually_waiting(1, name, 1));
      ASSERT_EQ(write_command(holder, words(to)), 0);
      EXPECT_EQ(end_of(waiter), 0) << name;
    }
  }
}

// Two processes of a node hold together; when one lets go, the node has no more than the other.
TEST_P(SharedConversions, ANodeHasNoMoreThanItsHoldersNeed) {
  const int stays = open_lock(0, "need");
  const int goes = open_lock(0, "need");
  const int probe = open_lock(1, "need");
  for (const Mode left : kModes) {
    for (const Mode gone : kModes) {
      if (!compatible(left, gone)) continue;
      SCOPED_TRACE(words(gone) + " goes, " + words(left) + " stays");
      ASSERT_EQ(write_command(stays, words(left) + " timeout=10s"), 0);
      ASSERT_EQ(write_command(goes, words(gone) + " timeout=10s"), 0);
      ASSERT_TRUE(excludes_as(left, gone, probe));
      ASSERT_EQ(write_command(goes, "UN"), 0);
      ASSERT_TRUE(excludes_as(left, Mode::kNL, probe));
      ASSERT_EQ(write_command(stays, "UN"), 0);
    }
  }
}

TEST_P(SharedConversions, WhoDiesConvertingLeavesNothing) {
  const int one = open_lock(1, "dies");
  ASSERT_EQ(write_command(one, "PR"), 0);
  auto dies = std::make_unique<Child>([path = lock(0, "dies")] {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
    if (const int wrong = write_command(fd, "PR timeout=20s"); wrong != 0) return wrong;
    return write_command(fd, "EX");
  });
  ASSERT_TRUE(eventually_waiting(1, "dies", 1));
  dies.reset();
  EXPECT_EQ(write_command(one, "EX timeout=10s"), 0);
}

// Who does not wait cannot block anybody for ever.
TEST_P(SharedConversions, ATryBesideAConversionThatWaitsIsRefusedAndNoDeadlock) {
  const int one = open_lock(0, "tries");
  const int two = open_lock(1, "tries");
  ASSERT_EQ(write_command(one, "PR"), 0);
  ASSERT_EQ(write_command(two, "PR"), 0);
  Child converts([&] { return write_command(one, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "tries", 1));
  EXPECT_EQ(write_command(two, "EX try"), EAGAIN);
  EXPECT_EQ(own(two, "this.mode"), "PR");
  ASSERT_EQ(write_command(two, "UN"), 0);
  EXPECT_EQ(end_of(converts), 0);
}

// As flock(2) on tmpfs: a conversion upwards gives up the old lock first, so both succeed in turn.
TEST_P(SharedConversions, TwoFlocksThatBecomeExclusiveDoSoInTurn) {
  const int one = open_lock(0, "flocks");
  const int two = open_lock(1, "flocks");
  ASSERT_EQ(flock(one, LOCK_SH), 0);
  ASSERT_EQ(flock(two, LOCK_SH), 0);
  const Common<Sole> sole;
  const auto upgrade = [&](int fd) {
    if (flock(fd, LOCK_EX) != 0) return errno;
    sole->enter();
    sole->leave();
    return flock(fd, LOCK_UN) == 0 ? 0 : errno;
  };
  Child first([&] { return upgrade(one); });
  ASSERT_TRUE(eventually_waiting(1, "flocks", 1));
  Child second([&] { return upgrade(two); });
  EXPECT_EQ(end_of(first), 0);
  EXPECT_EQ(end_of(second), 0);
  EXPECT_EQ(sole->twice(), 0);
}

}  // namespace
}  // namespace lockfs::test
