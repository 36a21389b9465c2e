// SPDX-License-Identifier: MIT
// Waits over several nodes: in what order they end, and that each of them does.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "core/mode.h"
#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedWaits : public ContractTest {
 protected:
  /// A process that asks, and ends with the answer; what it is granted it holds until then.
  std::unique_ptr<Child> asker(size_t i, const std::string& name, const std::string& command) {
    return std::make_unique<Child>([=, path = lock(i, name)] { return ask(path, command); });
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedWaits, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

constexpr std::array kModes = {Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};

constexpr const char* kNoOrder = "its traits promise no order among nodes";

TEST_P(SharedWaits, EachPairOfModesThatExcludeEachOtherWaitsAndIsGranted) {
  for (const Mode held : kModes) {
    for (const Mode wanted : kModes) {
      if (compatible(held, wanted)) continue;
      const std::string name = std::string(mode_name(held)) + std::string(mode_name(wanted));
      const int holder = open_lock(0, name);
      ASSERT_EQ(write_command(holder, std::string(mode_name(held))), 0);
      const auto waiter = asker(1, name, std::string(mode_name(wanted)) + " timeout=30s");
      ASSERT_TRUE(eventually_waiting(1, name, 1)) << name;
      ASSERT_EQ(write_command(holder, "UN"), 0);
      EXPECT_EQ(end_of(*waiter), 0) << name;
    }
  }
}

TEST_P(SharedWaits, FlockAndFcntlWaitForEachOther) {
  const int holder = open_lock(0, "calls");
  ASSERT_EQ(flock(holder, LOCK_EX), 0);
  Child waiter([path = lock(1, "calls")] {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
    struct flock whole {};
    whole.l_type = F_WRLCK;
    return fcntl(fd, F_OFD_SETLKW, &whole) == 0 ? 0 : errno;
  });
  ASSERT_TRUE(eventually_waiting(1, "calls", 1));
  ASSERT_EQ(flock(holder, LOCK_UN), 0);
  EXPECT_EQ(end_of(waiter), 0);
}

TEST_P(SharedWaits, NodesAreGrantedInTheOrderInWhichTheyAsked) {
  if (!world().fifo()) GTEST_SKIP() << kNoOrder;
  constexpr size_t kWaiters = 5;
  struct Turns {
    std::atomic<size_t> count{0};
    std::array<size_t, kWaiters> who{};
  };
  const Common<Turns> turns;
  const int holder = open_lock(0, "order");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  std::vector<std::unique_ptr<Child>> waiters;
  for (size_t i = 0; i < kWaiters; ++i) {
    const size_t at = i == 0 ? 1 : add_node();
    waiters.push_back(std::make_unique<Child>([&, i, path = lock(at, "order")] {
      const int result = ask(path, "EX timeout=60s");
      if (result == 0) turns->who.at(turns->count++) = i;
      return result;
    }));
    ASSERT_TRUE(eventually_waiting(0, "order", i + 1)) << picture(0, "order");
  }
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_TRUE(all_end_well(waiters));
  EXPECT_THAT(turns->who, testing::ElementsAre(0, 1, 2, 3, 4));
}

TEST_P(SharedWaits, AReaderDoesNotPassAWriterOfAnotherNodeThatWaits) {
  if (!world().fifo()) GTEST_SKIP() << kNoOrder;
  const size_t third = add_node();
  const int reader = open_lock(0, "fair");
  ASSERT_EQ(write_command(reader, "PR"), 0);
  const auto writer = asker(1, "fair", "EX timeout=60s");
  ASSERT_TRUE(eventually_waiting(0, "fair", 1));
  EXPECT_EQ(write_command(open_lock(third, "fair"), "PR try"), EAGAIN);
  ASSERT_EQ(write_command(reader, "UN"), 0);
  EXPECT_EQ(end_of(*writer), 0);
}

// The processes of node 0 are never without the lock: each takes it before the other lets go.
TEST_P(SharedWaits, ReadersOfOneNodeDoNotKeepAWriterOfAnotherOutForEver) {
  if (!world().sees_others()) GTEST_SKIP() << "nobody tells them of the writer";
  if (!world().fifo()) GTEST_SKIP() << kNoOrder;
  std::array readers = {open_lock(0, "readers"), open_lock(0, "readers")};
  ASSERT_EQ(write_command(readers[0], "PR"), 0);
  const auto writer = asker(1, "readers", "EX timeout=60s");
  ASSERT_TRUE(eventually_waiting(0, "readers", 1));
  int passed = 0;
  for (; passed < 50; ++passed) {
    if (write_command(readers[1], "PR try") != 0) break;
    ASSERT_EQ(write_command(readers[0], "UN"), 0);
    std::swap(readers[0], readers[1]);
  }
  EXPECT_LT(passed, 50) << "so many readers have passed the writer that waits";
  ASSERT_EQ(write_command(readers[0], "UN"), 0);
  EXPECT_EQ(end_of(*writer), 0);
}

// Two processes of node 0 hand the lock to each other: there is always one that waits for it.
TEST_P(SharedWaits, ANodeThatAlwaysWantsALockLetsAnotherHaveIt) {
  if (!world().fifo()) GTEST_SKIP() << kNoOrder;
  struct Seen {
    std::atomic<int> turns{0};
    std::atomic<bool> other{false};
  };
  constexpr int kTurns = 100;
  const std::string all = world().sees_others() ? "2" : "1";
  const Common<Seen> seen;
  const auto keep = [&, path = lock(0, "kept")] {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
    while (!seen->other && seen->turns < kTurns) {
      if (const int wrong = write_command(fd, "EX timeout=60s"); wrong != 0) return wrong;
      ++seen->turns;
      eventually([&] {
        return seen->other || seen->turns >= kTurns ||
               picture_value(slurp(path), "waiters_total") == all;
      });
      write_command(fd, "UN");
    }
    return 0;
  };
  Child one(keep);
  ASSERT_TRUE(eventually([&] { return seen->turns == 1; }));
  Child other([&, path = lock(1, "kept")] {
    const int result = ask(path, "EX timeout=60s");
    seen->other = true;
    return result;
  });
  ASSERT_TRUE(eventually_waiting(0, "kept", 1));
  Child two(keep);
  EXPECT_EQ(end_of(one), 0);
  EXPECT_EQ(end_of(two), 0);
  EXPECT_EQ(end_of(other), 0);
  EXPECT_LT(seen->turns, kTurns) << "hand-overs inside node 0, while node 1 waited";
}

TEST_P(SharedWaits, AWaiterKilledAtTheHeadLetsTheNextHaveItsTurn) {
  const size_t third = add_node();
  const int holder = open_lock(0, "head");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  auto first = asker(1, "head", "EX");
  ASSERT_TRUE(eventually_waiting(0, "head", 1));
  const auto next = asker(third, "head", "EX timeout=60s");
  ASSERT_TRUE(eventually_waiting(0, "head", 2));
  first.reset();
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(end_of(*next), 0);
}

TEST_P(SharedWaits, WhoWaitedBehindAKilledWriterAloneGoesAtOnce) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const size_t third = add_node();
  ASSERT_EQ(write_command(open_lock(0, "behind"), "PR"), 0);
  auto writer = asker(1, "behind", "EX");
  ASSERT_TRUE(eventually_waiting(0, "behind", 1));
  const auto reader = asker(third, "behind", "PR timeout=60s");
  if (world().fifo()) {
    ASSERT_TRUE(eventually_waiting(0, "behind", 2));
  }
  writer.reset();
  EXPECT_EQ(end_of(*reader), 0);
}

TEST_P(SharedWaits, WhoWaitedBehindAKilledWriterOfItsOwnNodeGoesAtOnce) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  ASSERT_EQ(write_command(open_lock(0, "own"), "PR"), 0);
  auto writer = asker(1, "own", "EX");
  ASSERT_TRUE(eventually_waiting(1, "own", 1));
  const auto reader = asker(1, "own", "PR timeout=60s");
  ASSERT_TRUE(eventually_waiting(1, "own", 2));
  writer.reset();
  EXPECT_EQ(end_of(*reader), 0);
}

// What the node has asked for in the name of the first is for the second, or asked for anew.
TEST_P(SharedWaits, AWaiterThatGivesUpLeavesTheNextOfItsNodeWaiting) {
  const int holder = open_lock(0, "leaves");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  const auto first = asker(1, "leaves", "EX timeout=300ms");
  const auto next = asker(1, "leaves", "PW timeout=60s");
  EXPECT_EQ(end_of(*first), ETIMEDOUT);
  ASSERT_TRUE(eventually_waiting(1, "leaves", 1));
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(end_of(*next), 0);
}

TEST_P(SharedWaits, WhoWaitedBehindAWriterThatGivesUpGoesAtOnce) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const size_t third = add_node();
  ASSERT_EQ(write_command(open_lock(0, "gives up"), "PR"), 0);
  const auto writer = asker(1, "gives up", "EX timeout=2s");
  ASSERT_TRUE(eventually_waiting(0, "gives up", 1));
  const auto reader = asker(third, "gives up", "PR timeout=60s");
  EXPECT_EQ(end_of(*writer), ETIMEDOUT);
  EXPECT_EQ(end_of(*reader, 30), 0);
}

// What fits beside all that is held, and whom no waiter must wait for, is granted at once.
TEST_P(SharedWaits, ARequestThatDelaysNobodyIsNotHeldUpByAWaiter) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  ASSERT_EQ(write_command(open_lock(1, "beside"), "PW"), 0);
  ASSERT_EQ(write_command(open_lock(0, "beside"), "CR"), 0);
  const auto waiter = asker(0, "beside", "PR");
  ASSERT_TRUE(eventually_waiting(1, "beside", 1));
  EXPECT_EQ(write_command(open_lock(0, "beside"), "CR try"), 0) << "beside CR and PW";
}

TEST_P(SharedWaits, AHundredWaitersOfTwoNodesAreEachGrantedOnce) {
  constexpr size_t kWaiters = 100;
  struct Seen {
    Sole sole;
    std::array<std::atomic<int>, kWaiters> times{};
  };
  const Common<Seen> seen;
  const int holder = open_lock(0, "many");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  std::vector<std::unique_ptr<Child>> waiters;
  for (size_t i = 0; i < kWaiters; ++i) {
    waiters.push_back(std::make_unique<Child>([&, i, path = lock(i % 2, "many")] {
      if (const int wrong = ask(path, "EX timeout=60s"); wrong != 0) return wrong;
      seen->sole.enter();
      ++seen->times.at(i);
      seen->sole.leave();
      return 0;
    }));
  }
  const bool separate = world().separate_nodes();
  ASSERT_TRUE(eventually_waiting(0, "many", separate ? kWaiters / 2 + 1 : kWaiters));
  ASSERT_TRUE(eventually_waiting(1, "many", separate ? kWaiters / 2 : kWaiters));
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_TRUE(all_end_well(waiters));
  for (const auto& times : seen->times) EXPECT_EQ(times, 1);
  EXPECT_EQ(seen->sole.twice(), 0);
  EXPECT_EQ(write_command(holder, "EX timeout=10s"), 0);
}

TEST_P(SharedWaits, AHundredReadersOfTwoNodesHoldTogether) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  constexpr int kReaders = 100;
  const Common<std::atomic<int>> holding;
  const int holder = open_lock(0, "readers");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  std::vector<std::unique_ptr<Child>> readers;
  for (size_t i = 0; i < kReaders; ++i) {
    readers.push_back(std::make_unique<Child>([&, path = lock(i % 2, "readers")] {
      if (const int wrong = ask(path, "PR timeout=60s"); wrong != 0) return wrong;
      ++*holding;
      // Not before all others hold as well.
      return eventually([&] { return *holding == kReaders; }, 60) ? 0 : EBUSY;
    }));
  }
  for (const size_t i : {0, 1}) {
    ASSERT_TRUE(eventually([&] { return shown(i, "readers", "waiters_total") > "0"; }));
  }
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_TRUE(all_end_well(readers));
  EXPECT_EQ(write_command(holder, "EX timeout=10s"), 0);
}

TEST_P(SharedWaits, AHolderIsToldThatAnotherNodeWaits) {
  const std::string traits = slurp(node(0).path() + "/.lockfs/traits");
  if (world().separate_nodes() && picture_value(traits, "default.contention_hints") != "true") {
    GTEST_SKIP() << "its traits promise no hints";
  }
  const int holder = open_lock(0, "hint");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  pollfd hint{holder, POLLPRI, 0};
  ASSERT_EQ(poll(&hint, 1, 0), 0);
  const auto waiter = asker(1, "hint", "EX timeout=60s");
  EXPECT_EQ(poll(&hint, 1, 10000), 1);
  EXPECT_NE(hint.revents & POLLPRI, 0);
}

// As Go's os.File does with a descriptor that is not blocking: it tries, and polls until it
// changes.
TEST_P(SharedWaits, WhoPollsIsToldThatAnotherNodeHasLetGo) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int holder = open_lock(0, "polled");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  const int fd = open_lock(1, "polled");
  ASSERT_EQ(write_command(fd, "EX try"), EAGAIN);
  std::array<char, 4096> picture{};
  ASSERT_GT(read(fd, picture.data(), picture.size()), 0);
  Child releases([&] {
    pollfd never{-1, 0, 0};
    poll(&never, 1, 300);  // While the other is polling; how long does not matter.
    return write_command(holder, "UN");
  });
  pollfd change{fd, POLLIN, 0};
  while (write_command(fd, "EX try") == EAGAIN) {
    ASSERT_GT(read(fd, picture.data(), picture.size()), 0);
    ASSERT_EQ(poll(&change, 1, 10000), 1) << "nobody said that it was let go";
  }
  EXPECT_EQ(releases.wait(), 0);
}

// A waiter of another node that has given up keeps nobody here waiting.
TEST_P(SharedWaits, ReadersGoOnWhenAWriterOfTheOtherNodeHasGivenUp) {
  const int holder = open_lock(0, "given up");
  ASSERT_EQ(write_command(holder, "PR"), 0);
  Child writer([path = lock(1, "given up")] { return ask(path, "EX timeout=100ms"); });
  EXPECT_EQ(end_of(writer), ETIMEDOUT);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask(lock(0, "given up"), "PR timeout=5s"), 0) << "at " << i;
  }
}

}  // namespace
}  // namespace lockfs::test
