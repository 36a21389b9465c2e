// SPDX-License-Identifier: MIT
// What the table writes down for those who watch, and counts.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Notes : public TableWorld {
 protected:
  // What was noted since the last call, in short words.
  std::vector<std::string> noted() {
    std::vector<std::string> out;
    for (; seen_ < table.journal.end(); ++seen_) {
      const Happening& h = table.journal.at(seen_);
      std::string words = std::string(happening_name(h.kind)) + " " + h.lock + " " +
                          std::string(mode_name(h.share.mode));
      if (h.lasted != Duration{}) {
        words += " " +
                 std::to_string(std::chrono::duration_cast<std::chrono::seconds>(h.lasted).count());
      }
      if (!h.why.empty()) words += ": " + h.why;
      out.push_back(words);
    }
    return out;
  }
  uint64_t refused(LockErrc code) const {
    return space.stats.refusals.at(static_cast<size_t>(code));
  }
  static uint64_t count(const Histogram& histogram) {
    uint64_t all = 0;
    for (const uint64_t n : histogram.counts) all += n;
    return all;
  }

 private:
  uint64_t seen_ = 0;
};

TEST_F(Notes, AGrantAndARelease) {
  const OwnerId a = holder(Mode::kEX);
  pass(std::chrono::seconds(3));
  table.release(a);
  EXPECT_THAT(noted(), ElementsAre("granted a EX", "released a EX 3"));
  EXPECT_EQ(space.stats.grants.at(static_cast<size_t>(Mode::kEX)), 1U);
  EXPECT_EQ(count(space.stats.hold), 1U);
  EXPECT_EQ(count(space.stats.wait), 0U) << "it did not wait";
  EXPECT_EQ(space.stats.holders, 0U);
}

TEST_F(Notes, AWaitAndItsGrant) {
  const OwnerId a = holder(Mode::kEX);
  waiter(Mode::kPR);
  EXPECT_EQ(space.stats.waiters, 1U);
  pass(std::chrono::seconds(2));
  table.close(a);
  EXPECT_THAT(noted(),
              ElementsAre("granted a EX", "waiting a PR", "released a EX 2", "granted a PR 2"));
  EXPECT_EQ(space.stats.waiters, 0U);
  EXPECT_EQ(space.stats.holders, 1U);
  EXPECT_EQ(count(space.stats.wait), 1U);
}

TEST_F(Notes, AGrantOfAWaitThatTookNoTimeWaited) {
  const OwnerId a = holder(Mode::kEX);
  waiter(Mode::kPR);
  table.close(a);
  EXPECT_EQ(count(space.stats.wait), 1U);
}

TEST_F(Notes, EachEndOfAWaitHasItsWord) {
  holder(Mode::kEX);
  const OwnerId late = open();
  Request timed = want(Mode::kEX);
  timed.timeout = std::chrono::seconds(1);
  ASSERT_EQ(ask(late, timed), std::nullopt);
  pass(std::chrono::seconds(1));
  const OwnerId interrupted = waiter(Mode::kEX);
  table.cancel(interrupted);
  const OwnerId closed = waiter(Mode::kEX);
  table.close(closed);
  EXPECT_THAT(noted(), ElementsAre("granted a EX", "waiting a EX", "timeout a EX 1", "waiting a EX",
                                   "interrupted a EX", "waiting a EX", "interrupted a EX"));
  EXPECT_EQ(refused(LockErrc::kTimedOut), 1U);
  EXPECT_EQ(refused(LockErrc::kInterrupted), 2U);
  EXPECT_EQ(space.stats.waiters, 0U);
}

TEST_F(Notes, ATryIsCountedAndNotTold) {
  holder(Mode::kEX);
  EXPECT_EQ(attempt(open(), Mode::kPR), LockErrc::kWouldBlock);
  EXPECT_THAT(noted(), ElementsAre("granted a EX"));
  EXPECT_EQ(refused(LockErrc::kWouldBlock), 1U);
}

TEST_F(Notes, ADeadlockIsToldAndWasNoWait) {
  const OwnerId a = holder(Mode::kEX, 1, "a");
  const OwnerId b = holder(Mode::kEX, 2, "b");
  noted();
  const OwnerId a_wants = waiter(Mode::kEX, 1, "b");
  EXPECT_EQ(ask(open(2, "a"), Mode::kEX), LockErrc::kDeadlock);
  EXPECT_THAT(noted(), ElementsAre("waiting b EX", "deadlock a EX"));
  EXPECT_EQ(refused(LockErrc::kDeadlock), 1U);
  EXPECT_EQ(space.stats.waiters, 1U);
  for (const OwnerId id : {a, b, a_wants}) table.close(id);
  EXPECT_EQ(space.stats.waiters + space.stats.holders, 0U);
}

TEST_F(Notes, WhoseLockIsBrokenHasNotReleasedIt) {
  holder(Mode::kPR);
  holder(Mode::kPR);
  table.break_lock(*table.find(space, "a"), "by me");
  EXPECT_THAT(noted(), ElementsAre("granted a PR", "granted a PR", "broken a PR: by me",
                                   "broken a PR: by me"));
  EXPECT_EQ(space.stats.broken, 2U);
  EXPECT_EQ(space.stats.lost, 0U);
  EXPECT_EQ(space.stats.holders, 0U);
  EXPECT_EQ(count(space.stats.hold), 2U);
}

TEST_F(Notes, ATtlThatRanOutIsALoss) {
  Request request = want(Mode::kEX);
  request.ttl = std::chrono::seconds(5);
  ASSERT_EQ(ask(open(), request), LockErrc::kOk);
  pass(std::chrono::seconds(5));
  EXPECT_THAT(noted(), ElementsAre("granted a EX", "lost a EX 5: its ttl ran out"));
  EXPECT_EQ(space.stats.lost, 1U);
}

TEST_F(Notes, AConversionIsAGrantAndToNothingARelease) {
  const OwnerId a = holder(Mode::kPR);
  pass(std::chrono::seconds(1));
  ASSERT_EQ(ask(a, Mode::kEX), LockErrc::kOk);
  pass(std::chrono::seconds(2));
  ASSERT_EQ(ask(a, Mode::kEX), LockErrc::kOk);
  EXPECT_EQ(space.stats.holders, 1U);
  const uint64_t token = table.find(a)->token;
  ASSERT_EQ(ask(a, Mode::kNL), LockErrc::kOk);
  EXPECT_THAT(noted(), ElementsAre("granted a PR", "granted a EX", "released a EX 2"));
  EXPECT_EQ(table.journal.at(table.journal.end() - 1).token, token);
  EXPECT_EQ(space.stats.holders, 0U);
  EXPECT_EQ(count(space.stats.hold), 1U);
  table.close(a);
  EXPECT_THAT(noted(), IsEmpty());
}

TEST_F(Notes, WhatIsResumedWasHeldAllTheTime) {
  Request request = want(Mode::kEX);
  request.linger = std::chrono::seconds(9);
  const OwnerId a = open();
  ASSERT_EQ(ask(a, request), LockErrc::kOk);
  const std::string key = table.find(a)->extras->key;
  table.close(a);
  const OwnerId b = open();
  ASSERT_EQ(table.resume(b, key, {0, 1000, 1000}), LockErrc::kOk);
  EXPECT_EQ(space.stats.holders, 1U);
  EXPECT_EQ(space.stats.grants.at(static_cast<size_t>(Mode::kEX)), 1U);
  EXPECT_EQ(count(space.stats.hold), 0U);
  EXPECT_THAT(noted(), ElementsAre("granted a EX", "released a EX", "granted a EX"))
      << "by one, to the other";
}

TEST_F(Notes, ARefusalInsteadOfAGrantEndsTheWait) {
  table.quota.limits = {100, 100, 1};
  const OwnerId a = open(kNobody, "a", 1);
  const OwnerId b = open(kNobody, "b", 2);
  const OwnerId late = open(kNobody, "a", 2);
  ASSERT_EQ(ask(a, Mode::kEX), LockErrc::kOk);
  ASSERT_EQ(ask(b, Mode::kEX), LockErrc::kOk);
  ASSERT_EQ(ask(late, Mode::kEX), std::nullopt);
  noted();
  table.release(a);
  EXPECT_THAT(noted(), ElementsAre("released a EX", "refused a EX: a limit is reached"));
  EXPECT_EQ(refused(LockErrc::kLimit), 1U);
}

TEST_F(Notes, TheOldestIsForgotten) {
  const OwnerId a = open();
  for (size_t i = 0; i < Journal::kKept; ++i) {
    ASSERT_EQ(ask(a, Mode::kEX), LockErrc::kOk);
    table.release(a);
  }
  EXPECT_EQ(table.journal.end(), 2 * Journal::kKept);
  EXPECT_EQ(table.journal.begin(), Journal::kKept);
  EXPECT_EQ(table.journal.at(table.journal.begin()).kind, Happening::Kind::kGranted);
}

TEST(Histograms, CountByUpperBounds) {
  Histogram histogram;
  histogram.add(std::chrono::milliseconds(1));
  histogram.add(std::chrono::microseconds(1001));
  histogram.add(std::chrono::hours(24));
  EXPECT_EQ(histogram.counts.at(2), 1U) << "up to 0.001 s";
  EXPECT_EQ(histogram.counts.at(3), 1U);
  EXPECT_EQ(histogram.counts.back(), 1U);
}

}  // namespace
}  // namespace lockfs
