// SPDX-License-Identifier: MIT
// Deadlocks over several locks, which the processes that wait make.
#include <ctime>
#include <random>

#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
constexpr auto kOk = LockErrc::kOk;

class LockTableDeadlock : public TableWorld {
 protected:
  static std::string name(int i) { return "lock" + std::to_string(i); }
  static pid_t pid(int i) { return 100 + i; }
  /// Process i holds lock i, and all but the last wait for the next one's lock.
  std::vector<OwnerId> chain(int length) {
    std::vector<OwnerId> holders;
    for (int i = 0; i < length; ++i) holders.push_back(holder(Mode::kEX, pid(i), name(i)));
    for (int i = 0; i + 1 < length; ++i) waiter(Mode::kEX, pid(i), name(i + 1));
    return holders;
  }
};

class DeadlockRing : public LockTableDeadlock, public testing::WithParamInterface<int> {};

TEST_P(DeadlockRing, IsRefusedToTheOneThatWouldCloseIt) {
  const int length = GetParam();
  const std::vector<OwnerId> holders = chain(length);
  const OwnerId closing = open(pid(length - 1), name(0));
  EXPECT_EQ(ask(closing, Mode::kEX), LockErrc::kDeadlock);
  EXPECT_TRUE(free(closing));
  EXPECT_EQ(lock(name(0)).stats.deadlocks, 1U);
  for (int i = length - 1; i > 0; --i) {  // The others go on once the last lets go.
    table.close(holders[static_cast<size_t>(i)]);
    ASSERT_EQ(observer.answers.size(), 1U);
    EXPECT_EQ(observer.answers.front().result, kOk);
    table.close(observer.take().front().owner);
  }
}

TEST_P(DeadlockRing, IsNoDeadlockWhenOneOfItHasThreads) {
  const int length = GetParam();
  processes.with_threads.insert(pid(length / 2));
  chain(length);
  EXPECT_EQ(ask(open(pid(length - 1), name(0)), Mode::kEX), std::nullopt);
}

TEST_P(DeadlockRing, IsNoDeadlockWhenOneThreadOfAProcessWaits) {
  const int length = GetParam();
  chain(length);
  processes.thread_of[7] = pid(length - 1);  // A second thread asks; the first may let go.
  EXPECT_EQ(ask(open(7, name(0)), Mode::kEX), std::nullopt);
}

TEST_P(DeadlockRing, IsNoRingWhenItsLastAsksForSomethingElse) {
  const int length = GetParam();
  chain(length);
  holder(Mode::kEX, 7, "other");
  EXPECT_EQ(ask(open(pid(length - 1), "other"), Mode::kEX), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Length, DeadlockRing, testing::Values(1, 2, 3, 10),
                         testing::PrintToStringParamName());

TEST_F(LockTableDeadlock, ATryIsNotRefusedAsADeadlock) {
  chain(2);
  EXPECT_EQ(attempt(open(pid(1), name(0)), Mode::kEX), LockErrc::kWouldBlock);
}

TEST_F(LockTableDeadlock, AnotherDescriptorOfTheSameProcessOnOneLock) {
  holder(Mode::kPR, pid(0));
  EXPECT_EQ(ask(open(pid(0)), Mode::kEX), LockErrc::kDeadlock);
}

TEST_F(LockTableDeadlock, AHolderThatGaveItsOnlyDescriptorAwayIsNotItsReleaser) {
  processes.descriptions_each = 1;  // The one it has now opened, not the one it took the lock with.
  holder(Mode::kPR, pid(0));
  EXPECT_EQ(ask(open(pid(0)), Mode::kEX), std::nullopt);
  ASSERT_FALSE(processes.asked.empty());
  EXPECT_EQ(processes.asked.back().descriptions, 2U);
  EXPECT_EQ(processes.asked.back().inode, lock().inode());
}

TEST_F(LockTableDeadlock, AConversionThatIsAskedForLastClosesTheRing) {
  processes.descriptions_each = 1;  // What it converts, and nothing else of that lock.
  const OwnerId converts = holder(Mode::kPR, pid(0), "a");
  holder(Mode::kCR, pid(1), "a");
  holder(Mode::kEX, pid(2), "b");
  waiter(Mode::kPW, pid(2), "a");  // Behind p0's PR.
  waiter(Mode::kEX, pid(1), "b");
  EXPECT_EQ(ask(converts, Mode::kEX), LockErrc::kDeadlock);  // Behind p1's CR.
}

TEST_F(LockTableDeadlock, IsSeenThroughAWaiterAheadInTheQueue) {
  // p1 holds b and waits for a behind p2's wait; p0 holds a and asks for b.
  holder(Mode::kPR, pid(0), "a");
  waiter(Mode::kEX, pid(2), "a");
  holder(Mode::kEX, pid(1), "b");
  waiter(Mode::kPR, pid(1), "a");
  EXPECT_EQ(ask(open(pid(0), "b"), Mode::kEX), LockErrc::kDeadlock);
}

TEST_F(LockTableDeadlock, AnyOfManyReadersCanCloseTheRing) {
  for (int i = 1; i <= 5; ++i) holder(Mode::kPR, pid(i), "a");
  holder(Mode::kEX, pid(0), "b");
  waiter(Mode::kEX, pid(0), "a");
  EXPECT_EQ(ask(open(pid(4), "b"), Mode::kEX), LockErrc::kDeadlock);
}

TEST_F(LockTableDeadlock, AWaitThatEndedMakesNoRing) {
  holder(Mode::kEX, pid(0), "a");
  holder(Mode::kEX, pid(1), "b");
  const OwnerId waits_no_more = waiter(Mode::kEX, pid(0), "b");
  table.cancel(waits_no_more);
  EXPECT_EQ(ask(open(pid(1), "a"), Mode::kEX), std::nullopt);
}

TEST_F(LockTableDeadlock, AHoldThatEndedMakesNoRing) {
  const OwnerId a = holder(Mode::kEX, pid(0), "a");
  holder(Mode::kEX, pid(2), "a2");
  holder(Mode::kEX, pid(1), "b");
  waiter(Mode::kEX, pid(0), "b");
  table.release(a);
  EXPECT_EQ(ask(open(pid(1), "a"), Mode::kEX), kOk);
}

TEST_F(LockTableDeadlock, WhatLingersEndsWithTime) {
  Request request = want(Mode::kEX);
  request.linger = std::chrono::seconds(10);
  const OwnerId owner = open(pid(0), "a");
  EXPECT_EQ(ask(owner, request), kOk);
  table.close(owner);
  EXPECT_EQ(ask(open(pid(0), "a"), Mode::kEX), std::nullopt) << "the linger's end will free it";
}

TEST_F(LockTableDeadlock, ADescriptorTakenOverByAnotherProcessCountsForThatOne) {
  // p0 took a; p1 converted it since, so p1 is the one to let go.
  const OwnerId a = holder(Mode::kEX, pid(0), "a");
  EXPECT_EQ(table.request(a, want(Mode::kPR), {pid(1), 1000, 1000}), kOk);
  holder(Mode::kEX, pid(0), "b");
  waiter(Mode::kEX, pid(1), "b");
  EXPECT_EQ(ask(open(pid(0), "a"), Mode::kEX), LockErrc::kDeadlock);
}

TEST_F(LockTableDeadlock, ProcessesOutOfSightAreNeverRefused) {
  holder(Mode::kEX, kNobody, "a");
  EXPECT_EQ(ask(open(kNobody, "a"), Mode::kEX), std::nullopt);
}

TEST_F(LockTableDeadlock, ARefusalLeavesNothingBehind) {
  const std::vector<OwnerId> holders = chain(3);
  const OwnerId closing = open(pid(2), name(0));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(closing, Mode::kEX), LockErrc::kDeadlock);
  EXPECT_EQ(lock(name(0)).waiters(), 0U);
  EXPECT_EQ(table.waits().size(), 2U);
  table.close(holders[0]);
  EXPECT_EQ(ask(closing, Mode::kEX), kOk);
}

TEST_F(LockTableDeadlock, WaitsNamesWhomEachWaitsFor) {
  const std::vector<OwnerId> holders = chain(3);
  const auto rows = table.waits();
  ASSERT_EQ(rows.size(), 2U);
  for (const auto& row : rows) {
    ASSERT_EQ(row.blockers.size(), 1U);
    EXPECT_EQ(row.waiter->lock, row.blockers.front()->lock);
    EXPECT_TRUE(row.blockers.front()->holding);
    EXPECT_FALSE(row.cycle);
  }
}

TEST_F(LockTableDeadlock, WaitsShowsARingThatThreadsCouldStillEnd) {
  processes.with_threads = {pid(0), pid(1)};
  chain(2);
  waiter(Mode::kEX, pid(1), name(0));
  waiter(Mode::kEX, 999, name(0));  // Waits for the ring, but is no part of it.
  size_t in_ring = 0;
  for (const auto& row : table.waits()) in_ring += row.cycle ? 1 : 0;
  EXPECT_EQ(in_ring, 2U);
}

TEST_F(LockTableDeadlock, WhatWasResumedCountsForItsNewHolder) {
  Request request = want(Mode::kEX);
  request.linger = std::chrono::seconds(10);
  const OwnerId owner = open(pid(0), "a");
  EXPECT_EQ(ask(owner, request), kOk);
  const std::string key = table.find(owner)->extras->key;
  table.close(owner);
  EXPECT_EQ(table.resume(open(pid(1), "a"), key, {pid(1), 1000, 1000}), kOk);
  holder(Mode::kEX, pid(2), "b");
  waiter(Mode::kEX, pid(2), "a");
  EXPECT_EQ(ask(open(pid(1), "b"), Mode::kEX), LockErrc::kDeadlock);
}

TEST_F(LockTableDeadlock, WaitsNamesAllTheReadersAheadButOfWritersTheNearest) {
  const OwnerId holder_of_it = holder(Mode::kEX);
  const std::vector<OwnerId> readers = {waiter(Mode::kPR), waiter(Mode::kPR)};
  waiter(Mode::kEX);
  const OwnerId nearest = waiter(Mode::kEX);
  const OwnerId last = waiter(Mode::kEX);
  for (const auto& row : table.waits()) {
    if (row.waiter->id != last) continue;
    std::vector<OwnerId> blockers;
    for (const Owner* blocker : row.blockers) blockers.push_back(blocker->id);
    EXPECT_THAT(blockers,
                testing::UnorderedElementsAre(holder_of_it, readers[0], readers[1], nearest));
  }
}

TEST_F(LockTableDeadlock, WaitsNamesAtMostSoManyBlockers) {
  for (int i = 0; i < 40; ++i) holder(Mode::kPR);
  waiter(Mode::kEX);
  ASSERT_EQ(table.waits().size(), 1U);
  EXPECT_EQ(table.waits().front().blockers.size(), WaitForGraph::kMaxBlockers);
}

class ManyHolders : public LockTableDeadlock {
 protected:
  /// "a" is held by so many in PR. Each waits for "b", and `waiters` more for "a".
  void fill(int holders, int waiters) {
    holder(Mode::kEX, pid(-2), "b");
    for (int i = 0; i < holders; ++i) holder(Mode::kPR, pid(i));
    for (int i = 0; i < holders; ++i) waiter(Mode::kEX, pid(i), "b");
    for (int i = holders; i < holders + waiters; ++i) {
      holder(Mode::kEX, pid(i), name(i));
      waiter(Mode::kEX, pid(i));
    }
    holder(Mode::kEX, pid(-1), "mine");
    processes.asked.clear();
  }
};

TEST_F(ManyHolders, AreNotAskedForWhereThereIsNoCycle) {
  fill(1000, 20);
  EXPECT_EQ(ask(open(pid(-1)), Mode::kEX), std::nullopt);
  EXPECT_EQ(processes.asked.size(), 0U);
}

TEST_F(ManyHolders, OnlyThoseOfTheCycleAreAskedFor) {
  fill(1000, 20);
  waiter(Mode::kEX, pid(-2), "mine");  // It holds b, for which all wait.
  EXPECT_EQ(ask(open(pid(-1)), Mode::kEX), LockErrc::kDeadlock);
  EXPECT_EQ(processes.asked.size(), 3U);
}

TEST_F(ManyHolders, OfCyclesThatMayEndOnlySomeAreAskedForAndEachProcessOnce) {
  for (int i = 0; i < 100; ++i) processes.with_threads.insert(pid(i));
  fill(100, 20);
  waiter(Mode::kEX, pid(-2), "mine");
  EXPECT_EQ(ask(open(pid(-1)), Mode::kEX), std::nullopt);
  EXPECT_EQ(processes.asked.size(), WaitForGraph::kMostAsked);
  std::set<pid_t> once;
  for (const auto& asked : processes.asked) once.insert(asked.process);
  EXPECT_EQ(once.size(), processes.asked.size());
}

TEST_F(ManyHolders, AfterSoManyVisitsTheSearchIsGivenUp) {
  holder(Mode::kEX, pid(0), "mine");
  for (size_t i = 0; i < WaitForGraph::kMostVisits; ++i) holder(Mode::kPR);
  holder(Mode::kPR, pid(1));
  waiter(Mode::kEX, pid(1), "mine");
  EXPECT_EQ(ask(open(pid(0)), Mode::kEX), std::nullopt);
}

std::chrono::nanoseconds cpu() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// That they are gone through counts as well, though they go with what is wanted.
TEST_F(ManyHolders, ConversionsBehindThemAreNoLongSearch) {
  std::vector<OwnerId> converts;
  for (int i = 0; i < 40000; ++i) holder(Mode::kNL, pid(3));
  for (int i = 0; i < 5000; ++i) converts.push_back(holder(Mode::kCR, pid(1)));
  holder(Mode::kCW, pid(2));
  holder(Mode::kEX, pid(1), "b");
  processes.with_threads.insert(pid(1));
  const auto before = cpu();
  for (const OwnerId owner : converts) ask(owner, Mode::kPR);
  EXPECT_EQ(lock().waiters(), converts.size());
  const OwnerId last = holder(Mode::kCR, pid(4));
  ask(last, Mode::kEX);  // Looks for those that it blocks, and that block it.
  holder(Mode::kEX, pid(0), "mine");
  EXPECT_EQ(ask(open(pid(0), "b"), Mode::kEX), std::nullopt);
  EXPECT_EQ(table.waits().size(), converts.size() + 2);
  EXPECT_LT(cpu() - before, std::chrono::milliseconds(500));
}

TEST_F(ManyHolders, WaitsLooksAtEachOnce) {
  fill(1000, 300);
  waiter(Mode::kEX, pid(-2), "mine");
  const auto before = cpu();
  const auto rows = table.waits();
  EXPECT_LT(cpu() - before, std::chrono::milliseconds(50));
  EXPECT_EQ(rows.size(), 1000U + 300U + 1U);
  for (const auto& row : rows) EXPECT_FALSE(row.cycle);
}

/// All that a wait waits for.
void each_blocker(const Owner& waiter, const std::function<void(Owner&)>& visit) {
  const auto visit_all = [&](Owner& holder) { return visit(holder), false; };
  waiter.lock->any_holder_against(waiter, visit_all);
  for (Owner* ahead : waiter.lock->nearest_ahead(waiter)) {
    for (; ahead != nullptr; ahead = waiter.lock->beside(*ahead)) visit(*ahead);
  }
}

/// Does a wait come back to its process, by looking at all? What waits() is to say.
bool waits_for_itself(const Owner& start, const std::vector<const Owner*>& waiters) {
  std::set<const Owner*> seen = {&start};
  std::vector<const Owner*> open = {&start};
  bool found = false;
  while (!open.empty()) {
    const Owner& waiter = *open.back();
    open.pop_back();
    each_blocker(waiter, [&](Owner& blocker) {
      const bool holds = blocker.holding && blocker.held.above_null();
      const pid_t process = blocker.wait ? blocker.wait->process : blocker.client.pid;
      found = found || (holds && process == start.wait->process);
      for (const Owner* next : waiters) {
        const bool follows = holds ? next->wait->process == process : next == &blocker;
        if (follows && seen.insert(next).second) open.push_back(next);
      }
    });
  }
  return found;
}

TEST_F(LockTableDeadlock, WaitsMarksWhatALookAtAllMarks) {
  for (int i = 0; i < 8; ++i) processes.with_threads.insert(pid(i));  // Nobody is refused.
  std::mt19937_64 random(20261128);  // NOLINT: the same numbers each time.
  std::vector<OwnerId> owners;
  size_t cycles = 0;
  for (int step = 0; step < 3000; ++step) {
    if (owners.size() == 24) {
      const size_t victim = random() % owners.size();
      table.close(owners[victim]);
      owners.erase(owners.begin() + static_cast<ptrdiff_t>(victim));
      continue;
    }
    if (owners.empty() || random() % 4 != 0) {
      const int who = static_cast<int>(random() % 8);
      owners.push_back(open(pid(who), name(static_cast<int>(random() % 3))));
    }
    ask(owners[random() % owners.size()], kAllModes[random() % kAllModes.size()]);
    const auto rows = table.waits();
    std::vector<const Owner*> waiters;
    for (const auto& row : rows) waiters.push_back(row.waiter);
    for (const auto& row : rows) {
      ASSERT_EQ(row.cycle, waits_for_itself(*row.waiter, waiters)) << "step " << step;
      cycles += row.cycle ? 1 : 0;
    }
  }
  EXPECT_GT(cycles, 100U);
}

}  // namespace
}  // namespace lockfs
