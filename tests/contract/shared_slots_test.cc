// SPDX-License-Identifier: MIT
// Counting semaphores that nodes share: so many slots in all, whoever has them.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <random>

#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedSlots : public ContractTest {
 protected:
  void SetUp() override {
    if (!world().has_slots()) GTEST_SKIP() << "it has no slots";
  }
  int slot(size_t i, const std::string& name, const std::string& rest = "") {
    const int fd = open_lock(i, name);
    const int result = write_command(fd, "SLOT size=3 " + rest);
    return result == 0 ? fd : -result;
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedSlots, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

TEST_P(SharedSlots, AreGivenOutToTheSizeWhoeverHasThem) {
  const int first = slot(0, "three");
  const int second = slot(1, "three");
  const int third = slot(0, "three");
  ASSERT_GT(std::min({first, second, third}), 0);
  EXPECT_EQ(slot(0, "three", "try"), -EAGAIN);
  EXPECT_EQ(slot(1, "three", "try"), -EAGAIN);
  Child late([path = lock(1, "three")] { return ask(path, "SLOT size=3 timeout=50ms"); });
  EXPECT_EQ(end_of(late), ETIMEDOUT);
  Child waits([path = lock(1, "three")] { return ask(path, "SLOT size=3 timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "three", 1));
  ASSERT_EQ(write_command(third, "UN"), 0);
  EXPECT_EQ(end_of(waits), 0);
  EXPECT_TRUE(eventually([&] { return slot(0, "three", "try") > 0; }));
  EXPECT_EQ(shown(0, "three", "mode"), "SLOT");
  EXPECT_TRUE(sees([&] { return shown(1, "three", "mode") == "SLOT"; }));
}

// What another node wanted once, and wants no more, keeps nobody here from the rest.
TEST_P(SharedSlots, GoOnWhenAnotherNodeHasGivenUp) {
  if (!world().separate_nodes()) GTEST_SKIP() << "one mount has no other";
  ASSERT_GT(slot(0, "rest"), 0);
  const int there[] = {slot(1, "rest"), slot(1, "rest")};
  Child late([path = lock(1, "rest")] { return ask(path, "SLOT size=3 timeout=100ms"); });
  EXPECT_EQ(end_of(late), ETIMEDOUT);
  for (const int fd : there) ASSERT_EQ(write_command(fd, "UN"), 0);
  for (int i = 0; i < 20; ++i) {
    const int fd = slot(0, "rest", "timeout=5s");
    ASSERT_GT(fd, 0) << "at " << i;
    ASSERT_EQ(write_command(fd, "UN"), 0);
  }
}

TEST_P(SharedSlots, OfAnotherSizeAreInvalidWhileTheyAreInUse) {
  const int fd = slot(0, "size");
  ASSERT_GT(fd, 0);
  const int other = open_lock(1, "size");
  EXPECT_EQ(write_command(other, "SLOT size=2"), EINVAL);
  ASSERT_EQ(write_command(fd, "UN"), 0);
  if (world().keeps_size()) return;
  EXPECT_TRUE(eventually([&] { return write_command(other, "SLOT size=2 try") == 0; }));
}

TEST_P(SharedSlots, GoWithNoOtherMode) {
  if (world().keeps_size()) GTEST_SKIP() << "a lock keeps its first size for minutes";
  const int fd = slot(0, "modes");
  ASSERT_GT(fd, 0);
  for (const char* mode : {"CR", "CW", "PR", "PW", "EX"}) {
    EXPECT_EQ(ask(lock(1, "modes"), std::string(mode) + " try"), EAGAIN) << mode;
  }
  ASSERT_EQ(write_command(fd, "UN"), 0);
  const int reads = open_lock(1, "modes");
  ASSERT_EQ(write_command(reads, "CR timeout=5s"), 0);
  EXPECT_EQ(slot(0, "modes", "try"), -EAGAIN);
  ASSERT_EQ(write_command(reads, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return slot(0, "modes", "try") > 0; }));
}

TEST_P(SharedSlots, AreConvertedToAModeAndBack) {
  const int fd = slot(0, "converts");
  ASSERT_GT(fd, 0);
  ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
  EXPECT_EQ(slot(1, "converts", "try"), -EAGAIN);
  ASSERT_EQ(write_command(fd, "SLOT size=3 timeout=5s"), 0);
  EXPECT_TRUE(eventually([&] { return slot(1, "converts", "try") > 0; }));
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
}

TEST_P(SharedSlots, OfADeadNodeAreFree) {
  if (!world().separate_nodes()) GTEST_SKIP() << "one mount has no other";
  for (int i = 0; i < 2; ++i) ASSERT_GT(slot(0, "dead"), 0);
  ASSERT_GT(slot(1, "dead"), 0);
  ASSERT_EQ(slot(1, "dead", "try"), -EAGAIN);
  kill_node(0);
  for (int i = 0; i < 2; ++i) EXPECT_GT(slot(1, "dead", "timeout=20s"), 0);
  EXPECT_EQ(slot(1, "dead", "try"), -EAGAIN);
}

TEST_P(SharedSlots, AreNeverMoreThanThereAre) {
  struct Counts {
    std::atomic<int> now;
    std::atomic<int> most;
    std::atomic<int> grants;
  };
  const Common<Counts> counts;
  std::vector<std::unique_ptr<Child>> children;
  for (unsigned i = 0; i < 8; ++i) {
    children.push_back(std::make_unique<Child>([&, i, path = lock(i % 2, "storm")] {
      std::mt19937 random(i);
      const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
      for (int n = 0; n < 300; ++n) {
        const bool tries = random() % 4 == 0;
        const int result = write_command(fd, tries ? "SLOT size=3 try" : "SLOT size=3 timeout=60s");
        if ((result == EAGAIN || result == EHOSTUNREACH) && tries) continue;
        if (result != 0) return result;
        const int now = ++counts->now;
        for (int most = counts->most;
             now > most && !counts->most.compare_exchange_weak(most, now);) {
        }
        ++counts->grants;
        if (random() % 3 == 0) sched_yield();
        --counts->now;
        if (write_command(fd, "UN") != 0) return EPROTO;
      }
      return 0;
    }));
  }
  for (const auto& child : children) EXPECT_EQ(end_of(*child), 0);
  EXPECT_LE(counts->most, 3);
  EXPECT_GT(counts->grants, 300);
  // None is left over.
  for (int i = 0; i < 3; ++i) EXPECT_GT(slot(static_cast<size_t>(i % 2), "storm", "timeout=5s"), 0);
}

}  // namespace
}  // namespace lockfs::test
