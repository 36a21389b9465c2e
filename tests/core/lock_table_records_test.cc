// SPDX-License-Identifier: MIT
// Names, pins, the lock value block, tokens, statistics, quotas, and what is told of changes.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
constexpr auto kOk = LockErrc::kOk;
constexpr Client kUser = {0, 1000, 1000};

class LockTableRecords : public TableWorld {};

TEST_F(LockTableRecords, ALockIsVisibleWhileItIsHeldAboveNull) {
  EXPECT_EQ(table.find(space, "a"), nullptr);
  const OwnerId owner = open();
  EXPECT_FALSE(lock().visible());
  EXPECT_EQ(ask(owner, Mode::kNL), kOk);
  EXPECT_FALSE(lock().visible());
  EXPECT_EQ(ask(owner, Mode::kCR), kOk);
  EXPECT_TRUE(lock().visible());
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  EXPECT_TRUE(lock().visible());
  table.release(owner);
  EXPECT_FALSE(lock().visible());
}

TEST_F(LockTableRecords, APinnedNameIsVisibleUntilItIsUnpinned) {
  EXPECT_EQ(pin(space, "a", {1000, 0666, false}), kOk);
  EXPECT_TRUE(lock().visible());
  EXPECT_FALSE(lock().held());
  EXPECT_EQ(lock().pin->uid, 1000U);
  EXPECT_EQ(pin(space, "a", {0, 0666, false}), LockErrc::kExists);
  EXPECT_EQ(lock().pin->uid, 1000U) << "a second touch changes nothing";
  EXPECT_EQ(pin(space, "a", {1000, 0600, false}, false), kOk);
  EXPECT_EQ(lock().pin->mode, 0600) << "changed as asked";
  table.close(holder(Mode::kEX));
  EXPECT_TRUE(lock().visible());
  EXPECT_EQ(unpin(space, "a"), kOk);
  EXPECT_EQ(unpin(space, "a"), LockErrc::kNotFound);
  EXPECT_FALSE(lock().visible());
}

TEST_F(LockTableRecords, AllocateTakesANameOnce) {
  EXPECT_EQ(pin(space, "1", {1000, 0666, true}), kOk);
  EXPECT_TRUE(lock("1").pin->allocated);
  EXPECT_EQ(pin(space, "1", {1000, 0666, true}), LockErrc::kExists);
  EXPECT_EQ(pin(space, "1", {1000, 0666, false}), LockErrc::kExists);
  EXPECT_TRUE(lock("1").pin->allocated);
  EXPECT_EQ(unpin(space, "1"), kOk);
  EXPECT_EQ(pin(space, "1", {1000, 0666, true}), kOk);
}

TEST_F(LockTableRecords, ALockspaceInUseIsBusy) {
  MemoryBackend backend;
  Lockspace& other = table.add_lockspace("other", backend);
  const uint32_t id = other.id;
  const OwnerId owner = table.open(other, "a", kUser);
  EXPECT_EQ(table.remove_lockspace(other), LockErrc::kBusy);
  table.close(owner);
  EXPECT_EQ(pin(other, "b", {1000, 0666, false}), kOk);
  EXPECT_EQ(table.remove_lockspace(other), LockErrc::kBusy);
  EXPECT_EQ(unpin(other, "b"), kOk);
  EXPECT_EQ(table.idle(), 2U);
  EXPECT_EQ(table.remove_lockspace(other), kOk);
  EXPECT_EQ(table.idle(), 0U);
  EXPECT_EQ(table.find_lockspace("other"), nullptr);
  EXPECT_EQ(table.find_lockspace(id), nullptr);
  EXPECT_NE(table.add_lockspace("other", backend).id, id) << "an id is never used again";
}

TEST_F(LockTableRecords, LockspacesAreFoundByNameAndById) {
  EXPECT_EQ(table.find_lockspace("default"), &space);
  EXPECT_EQ(table.find_lockspace(space.id), &space);
  EXPECT_EQ(table.find_lockspace("Default"), nullptr);
  EXPECT_EQ(table.find_lockspace(space.id + 1), nullptr);
}

TEST_F(LockTableRecords, IdleNamesAreKeptUpToTheLimitTheOldestGoFirst) {
  table.idle_limit = 3;
  for (const char* name : {"a", "b", "c"}) table.close(holder(Mode::kEX, kNobody, name));
  EXPECT_EQ(table.idle(), 3U);
  table.close(holder(Mode::kEX, kNobody, "a"));  // Used again: now the youngest.
  table.close(holder(Mode::kEX, kNobody, "d"));
  EXPECT_EQ(table.idle(), 3U);
  EXPECT_EQ(table.find(space, "b"), nullptr);
  ASSERT_NE(table.find(space, "a"), nullptr);
  EXPECT_EQ(lock("a").stats.grants, 2U);
}

TEST_F(LockTableRecords, NamesInUseAreNotCollected) {
  table.idle_limit = 0;
  const OwnerId owner = holder(Mode::kEX, kNobody, "held");
  const OwnerId opened = open(kNobody, "open");
  EXPECT_EQ(pin(space, "pinned", {1000, 0666, false}), kOk);
  for (int i = 0; i < 10; ++i) table.close(holder(Mode::kEX, kNobody, "x" + std::to_string(i)));
  EXPECT_EQ(space.locks.size(), 3U);
  EXPECT_EQ(table.idle(), 0U);
  table.close(owner);
  table.close(opened);
  EXPECT_EQ(unpin(space, "pinned"), kOk);
  EXPECT_TRUE(space.locks.empty());
}

TEST_F(LockTableRecords, AnIdleNameThatIsOpenedIsInUseAgain) {
  table.idle_limit = 1;
  table.close(holder(Mode::kEX, kNobody, "a"));
  const OwnerId owner = open(kNobody, "a");
  EXPECT_EQ(table.idle(), 0U);
  table.close(holder(Mode::kEX, kNobody, "b"));
  table.close(holder(Mode::kEX, kNobody, "c"));
  ASSERT_NE(table.find(space, "a"), nullptr);
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
}

TEST_F(LockTableRecords, TheValueBlockIsThirtyTwoBytesAndZeroBehindTheValue) {
  const OwnerId owner = holder(Mode::kEX);
  EXPECT_EQ(lock().lvb, nullptr);
  table.write_lvb(lock(), std::string(40, 'x'));
  EXPECT_THAT(*lock().lvb, testing::Each('x'));
  table.write_lvb(lock(), "ab");
  EXPECT_EQ((*lock().lvb)[0], 'a');
  EXPECT_EQ((*lock().lvb)[1], 'b');
  for (size_t i = 2; i < 32; ++i) EXPECT_EQ((*lock().lvb)[i], 0) << i;
  table.release(owner);
  EXPECT_NE(lock().lvb, nullptr) << "it outlives the holder while the lock is open";
}

TEST_F(LockTableRecords, TokensGrowWithEveryExclusiveGrant) {
  uint64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const OwnerId owner = holder(i % 2 != 0 ? Mode::kEX : Mode::kPW);
    EXPECT_GT(table.find(owner)->token, last);
    last = table.find(owner)->token;
    table.close(owner);
  }
}

TEST_F(LockTableRecords, TokensGrowThoughTheRecordWasCollected) {
  table.idle_limit = 0;
  OwnerId owner = holder(Mode::kEX);
  const uint64_t first = table.find(owner)->token;
  table.close(owner);
  ASSERT_EQ(table.find(space, "a"), nullptr);
  owner = holder(Mode::kEX);
  EXPECT_GT(table.find(owner)->token, first);
}

TEST_F(LockTableRecords, TokensGrowOverARestart) {
  const OwnerId owner = holder(Mode::kEX);
  const uint64_t before = table.find(owner)->token;
  const auto microseconds = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  };
  while (microseconds() <= before) continue;  // No restart is as fast as this test.
  MemoryBackend later;
  LockTable restarted(timers, processes, observer);
  Lockspace& again = restarted.add_lockspace("default", later);
  const OwnerId next = restarted.open(again, "a", kUser);
  EXPECT_EQ(restarted.request(next, want(Mode::kEX), kUser), kOk);
  EXPECT_GT(restarted.find(next)->token, before);
}

TEST_F(LockTableRecords, TokensGrowWithAWaitersGrantAndAConversionIntoExclusive) {
  const OwnerId a = holder(Mode::kEX);
  const OwnerId b = waiter(Mode::kEX);
  const uint64_t first = table.find(a)->token;
  table.release(a);
  EXPECT_EQ(table.find(a)->token, 0U);
  const uint64_t second = table.find(b)->token;
  EXPECT_GT(second, first);
  EXPECT_EQ(ask(b, Mode::kPW), kOk);
  EXPECT_EQ(table.find(b)->token, second) << "nobody else was exclusive in between";
  EXPECT_EQ(ask(b, Mode::kPR), kOk);
  EXPECT_EQ(ask(b, Mode::kEX), kOk);
  EXPECT_GT(table.find(b)->token, second);
}

TEST_F(LockTableRecords, AReaderHasTheTokenOfTheLastWriter) {
  const OwnerId writer = holder(Mode::kEX);
  const uint64_t token = table.find(writer)->token;
  table.close(writer);
  holder(Mode::kCR, kNobody, "b");
  const OwnerId reader = holder(Mode::kPR);
  EXPECT_EQ(table.find(reader)->token, token);
}

TEST_F(LockTableRecords, StatisticsCountWaitsAndHolds) {
  const OwnerId a = holder(Mode::kEX);
  const OwnerId b = waiter(Mode::kEX);
  pass(seconds(3));
  table.release(a);
  pass(seconds(5));
  table.release(b);
  const LockStats& stats = lock().stats;
  EXPECT_EQ(stats.grants, 2U);
  EXPECT_EQ(stats.contended, 1U);
  EXPECT_EQ(stats.wait_total, seconds(3));
  EXPECT_EQ(stats.wait_max, seconds(3));
  EXPECT_EQ(stats.holds, 2U);
  EXPECT_EQ(stats.hold_total, seconds(8));
  EXPECT_EQ(stats.hold_max, seconds(5));
}

TEST_F(LockTableRecords, AUserCanHoldSoManyNamesAndNoMore) {
  table.quota.limits = {100, 100, 2};
  const OwnerId a = holder(Mode::kEX, kNobody, "a");
  EXPECT_EQ(pin(space, "p", {1000, 0666, false}), kOk);
  const OwnerId c = open(kNobody, "c");
  EXPECT_EQ(ask(c, Mode::kEX), LockErrc::kLimit);
  EXPECT_FALSE(lock("c").held());
  EXPECT_EQ(lock("c").claim, nullptr) << "the claim of a refused grant is given up";
  EXPECT_EQ(pin(space, "q", {1000, 0666, false}), LockErrc::kLimit);
  EXPECT_EQ(table.find(space, "q"), nullptr);
  EXPECT_EQ(ask(a, Mode::kPR), kOk) << "a conversion takes no second name";
  EXPECT_EQ(ask(a, Mode::kNL), kOk);
  EXPECT_EQ(ask(c, Mode::kEX), kOk);
  table.close(c);
  EXPECT_EQ(unpin(space, "p"), kOk);
  EXPECT_EQ(ask(a, Mode::kEX), kOk);
  holder(Mode::kEX, kNobody, "d");
}

TEST_F(LockTableRecords, AWaiterOverItsLimitIsToldWhenItsTurnComesAndTheNextGoes) {
  const OwnerId a = holder(Mode::kEX);
  const OwnerId b = waiter(Mode::kEX);
  const OwnerId root = open(kNobody, "a", 0);
  EXPECT_EQ(ask(root, Mode::kEX), std::nullopt);
  table.quota.limits = {100, 100, 0};
  table.release(a);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{b, LockErrc::kLimit}, Answer{root, kOk}));
}

TEST_F(LockTableRecords, AUserCanHaveSoManyWaitersAndNoMore) {
  table.quota.limits = {100, 1, 100};
  holder(Mode::kEX);
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = open();
  EXPECT_EQ(ask(second, Mode::kEX), LockErrc::kLimit);
  EXPECT_TRUE(free(second));
  table.cancel(first);
  EXPECT_EQ(ask(second, Mode::kEX), std::nullopt);
}

TEST_F(LockTableRecords, AHandOverBetweenUsersMovesTheName) {
  table.quota.limits = {100, 100, 1};
  const OwnerId owner = holder(Mode::kPR);
  EXPECT_EQ(table.request(owner, want(Mode::kEX), {0, 1001, 1001}), kOk);
  holder(Mode::kEX, kNobody, "free for 1000 again");
  const OwnerId other = open(kNobody, "c", 1001);
  EXPECT_EQ(ask(other, Mode::kEX), LockErrc::kLimit);
}

TEST_F(LockTableRecords, ChangesOfAWatchedLockAreTold) {
  const OwnerId owner = open();
  const OwnerId other = open(kNobody, "b");
  table.watch(lock());
  EXPECT_EQ(ask(other, Mode::kEX), kOk);
  EXPECT_THAT(observer.changes, IsEmpty());
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
  EXPECT_THAT(observer.changes, ElementsAre("a"));
  table.write_lvb(lock(), "x");
  waiter(Mode::kEX);
  table.release(owner);
  EXPECT_GE(observer.changes.size(), 4U);
}

TEST_F(LockTableRecords, ARecordThatGoesWhileItsChangeIsToldIsHarmless) {
  table.idle_limit = 0;
  const OwnerId owner = holder(Mode::kEX);
  table.watch(lock());
  table.close(owner);
  EXPECT_EQ(table.find(space, "a"), nullptr);
  EXPECT_THAT(observer.changes, IsEmpty()) << "there is nothing left to tell of";
}

TEST_F(LockTableRecords, InodesOfDifferentNamesDifferAndAreStable) {
  EXPECT_EQ(lock_inode(1, "a"), lock_inode(1, "a"));
  EXPECT_NE(lock_inode(1, "a"), lock_inode(2, "a"));
  EXPECT_NE(lock_inode(1, "a"), lock_inode(1, "b"));
  EXPECT_NE(lock_inode(1, "") >> 63, 0U);
}

TEST_F(LockTableRecords, AnOwnerCarriesItsOpenersTag) {
  EXPECT_EQ(table.find(table.open(space, "a", kUser, 77))->tag, 77U);
}

}  // namespace
}  // namespace lockfs
