// SPDX-License-Identifier: MIT
// Locks that are taken from their holders: what is behind them is deleted, their time is over, or
// they are broken; and what the other node has of it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedLoss : public ContractTest {
 protected:
  // The renewal is a use that changes nothing: EINVAL, for it has no ttl, until it is lost.
  static bool eventually_lost(int fd) {
    return eventually([&] { return write_command(fd, "renew") == ESTALE; });
  }
  static void expect_told(int fd, const std::string& why) {
    EXPECT_EQ(write_command(fd, "EX try"), ESTALE);
    EXPECT_EQ(own(fd, "this.mode"), "none");
    EXPECT_THAT(own(fd, "this.error"), testing::HasSubstr(why));
    pollfd state{fd, POLLIN, 0};
    EXPECT_EQ(poll(&state, 1, 10000), 1);
    EXPECT_EQ(state.revents & (POLLERR | POLLHUP), POLLERR | POLLHUP);
  }
  // A holder of node 0 whom node 1 knows by its words.
  int known_holder(const std::string& name, const std::string& mode) {
    const int fd = open_lock(0, name);
    EXPECT_EQ(write_command(fd, mode + " note=known"), 0);
    EXPECT_TRUE(eventually([&] { return shown(1, name, "holders.0.note") == "known"; }));
    return fd;
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedLoss, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

constexpr const char* kNothing = "there is no file behind its locks";

TEST_P(SharedLoss, TheHolderOfADeletedLockIsToldWhy) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  for (const char* mode : {"CR", "PR", "EX"}) {
    const std::string name = std::string("deleted ") + mode;
    const int holder = known_holder(name, mode);
    ASSERT_TRUE(world().delete_lock(name));
    EXPECT_TRUE(eventually_lost(holder)) << own(holder, "this.error");
    expect_told(holder, "was deleted");
    EXPECT_EQ(write_command(holder, "UN"), 0) << "until UN";
    EXPECT_NE(write_command(holder, "renew"), ESTALE);
    if (GetParam() == "shm") break;  // All its locks are gone at once.
  }
}

// Nobody has read of the holder yet, and nobody else was granted it.
TEST_P(SharedLoss, ALockThatIsDeletedAtOnceIsLostAsWell) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int holder = open_lock(0, "young");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  ASSERT_TRUE(world().delete_lock("young"));
  EXPECT_TRUE(eventually_lost(holder)) << "node 1: " << write_command(open_lock(1, "young"), "EX");
}

TEST_P(SharedLoss, TheHolderOfARenamedLockIsToldWhy) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  for (const char* mode : {"CR", "PR", "EX"}) {
    const std::string name = std::string("renamed ") + mode;
    const int holder = known_holder(name, mode);
    ASSERT_TRUE(world().move_lock(name));
    EXPECT_TRUE(eventually_lost(holder)) << own(holder, "this.error");
    expect_told(holder, "was renamed");
    if (GetParam() == "shm") break;  // All its locks are gone at once.
  }
}

// A mount that knew the old store grants nothing of the new one before the holders of the old one
// have had the time to see it.
TEST_P(SharedLoss, TheHolderOfARenamedStoreIsToldBeforeAnotherMountGrantsTheLockAnew) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int holder = known_holder("store", "EX");
  ASSERT_TRUE(world().move_store());
  if (eventually([&] { return ask(lock(1, "store"), "EX try") == 0; }, 4)) {
    EXPECT_EQ(write_command(holder, "renew"), ESTALE);
  }
  EXPECT_TRUE(eventually_lost(holder)) << own(holder, "this.error");
  restart_node(1);
  EXPECT_EQ(ask(lock(1, "store"), "EX try"), 0);
}

TEST_P(SharedLoss, AConversionThatWaitsEndsWithTheLoss) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int converts = known_holder("waits", "PR");
  ASSERT_EQ(write_command(open_lock(1, "waits"), "PR"), 0);
  Child child([&] { return write_command(converts, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "waits", 1));
  ASSERT_TRUE(world().delete_lock("waits"));
  EXPECT_EQ(end_of(child), ESTALE);
}

TEST_P(SharedLoss, AWaiterOfADeletedLockDoesNotWaitForEver) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int holder = known_holder("queue", "EX");
  Child waiter([path = lock(1, "queue")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "queue", 1));
  ASSERT_TRUE(world().delete_lock("queue"));
  const int result = end_of(waiter);
  EXPECT_TRUE(result == 0 || result == EHOSTUNREACH) << result;
  EXPECT_TRUE(eventually_lost(holder)) << "whoever else has been granted it";
}

// A node that still has what was deleted, and one that has made it anew, share nothing: the old
// one must refuse.
TEST_P(SharedLoss, NoLockIsGrantedOnBothSidesOfALoss) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int old = known_holder("sides", "EX");
  ASSERT_TRUE(world().delete_lock("sides"));
  ASSERT_TRUE(eventually_lost(old));
  restart_node(1);
  const int fresh = open_lock(1, "sides");
  ASSERT_EQ(write_command(fresh, "EX timeout=10s"), 0);
  ASSERT_EQ(write_command(old, "UN"), 0);
  EXPECT_NE(write_command(old, "EX timeout=100ms"), 0);
  EXPECT_NE(ask(lock(0, "sides"), "CR try"), 0);
}

TEST_P(SharedLoss, AfterALossNewMountsShareAgainAndTokensGo) {
  if (!world().has_files()) GTEST_SKIP() << kNothing;
  const int lost = known_holder("again", "EX");
  const uint64_t token = token_of(lost);
  ASSERT_TRUE(world().delete_lock("again"));
  restart_node(0);
  restart_node(1);
  const int holder = open_lock(0, "again");
  ASSERT_EQ(write_command(holder, "EX timeout=10s"), 0);
  EXPECT_GT(token_of(holder), token);
  EXPECT_EQ(write_command(open_lock(1, "again"), "CR try"), EAGAIN);
}

TEST_P(SharedLoss, AWaiterOfTheOtherNodeHasALockWhoseTtlRanOut) {
  const int holder = open_lock(0, "ttl");
  ASSERT_EQ(write_command(holder, "EX ttl=200ms"), 0);
  Child waiter([path = lock(1, "ttl")] { return ask(path, "EX timeout=60s"); });
  EXPECT_EQ(end_of(waiter), 0);
  EXPECT_EQ(write_command(holder, "renew"), ESTALE);
  expect_told(holder, "ttl");
}

TEST_P(SharedLoss, AWaiterOfTheOtherNodeHasABrokenLock) {
  const int holder = open_lock(0, "broken");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child waiter([path = lock(1, "broken")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(1, "broken", 1));
  EXPECT_EQ(ask(node(0).path() + "/default/.ctl", "break broken for a test"), 0);
  EXPECT_EQ(end_of(waiter), 0);
  expect_told(holder, "for a test");
}

TEST_P(SharedLoss, ALockThatLingersIsHeldForTheOtherNode) {
  const int brief = open(lock(0, "lingers").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_EQ(write_command(brief, "EX linger=60s"), 0);
  const std::string key = own(brief, "this.key");
  close(brief);
  const int other = open_lock(1, "lingers");
  EXPECT_EQ(write_command(other, "CR timeout=100ms"), ETIMEDOUT);
  const int resumed = open_lock(0, "lingers");
  EXPECT_TRUE(eventually([&] { return write_command(resumed, "resume " + key) == 0; }));
  ASSERT_EQ(write_command(resumed, "UN"), 0);
  EXPECT_EQ(write_command(other, "EX timeout=10s"), 0);
}

}  // namespace
}  // namespace lockfs::test
