// SPDX-License-Identifier: MIT
// What ends with time: timeouts, ttl, linger; and what takes a lock away.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
constexpr auto kOk = LockErrc::kOk;

class LockTableOptions : public TableWorld {
 protected:
  static Request with_ttl(Mode mode, Duration ttl) {
    Request request = want(mode);
    request.ttl = ttl;
    return request;
  }
  OwnerId lingerer(Mode mode, Duration linger, uid_t uid = 1000) {
    const OwnerId owner = open(kNobody, "a", uid);
    Request request = want(mode);
    request.linger = linger;
    EXPECT_EQ(ask(owner, request), kOk);
    return owner;
  }
  std::string key_of(OwnerId owner) const { return table.find(owner)->extras->key; }
};

TEST_F(LockTableOptions, AWaitEndsWithItsTimeoutAndNotBefore) {
  holder(Mode::kEX);
  const OwnerId owner = open();
  Request request = want(Mode::kEX);
  request.timeout = seconds(5);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(milliseconds(4999));
  EXPECT_TRUE(waits(owner));
  pass(milliseconds(1));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kTimedOut}));
  EXPECT_TRUE(free(owner));
  EXPECT_EQ(lock().stats.timeouts, 1U);
}

TEST_F(LockTableOptions, ATimeoutLetsThoseBehindGo) {
  holder(Mode::kPR);
  const OwnerId owner = open();
  Request request = want(Mode::kEX);
  request.timeout = seconds(5);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  const OwnerId reader = waiter(Mode::kPR);
  pass(seconds(5));
  EXPECT_THAT(observer.take(),
              ElementsAre(Answer{owner, LockErrc::kTimedOut}, Answer{reader, kOk}));
}

TEST_F(LockTableOptions, AGrantInTimeEndsTheTimeout) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId owner = open();
  Request request = want(Mode::kEX);
  request.timeout = seconds(5);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(seconds(4));
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
  pass(seconds(10));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_THAT(observer.answers, IsEmpty());
}

TEST_F(LockTableOptions, ATimedOutConversionKeepsTheOldMode) {
  holder(Mode::kPR);
  const OwnerId owner = holder(Mode::kPR);
  Request request = want(Mode::kEX);
  request.timeout = seconds(1);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(seconds(1));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kTimedOut}));
  EXPECT_TRUE(holds(owner, Mode::kPR));
}

TEST_F(LockTableOptions, ALockIsLostWhenItsTtlIsOverAndTheNextGoes) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kEX, seconds(5))), kOk);
  const OwnerId next = waiter(Mode::kEX);
  pass(milliseconds(4999));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  pass(milliseconds(1));
  EXPECT_THAT(observer.losses, ElementsAre(Pair(owner, HasSubstr("ttl"))));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
  EXPECT_EQ(lock().stats.lost, 1U);
}

TEST_F(LockTableOptions, TheTtlCountsFromTheGrantAndNotFromTheRequest) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kEX, seconds(5))), std::nullopt);
  pass(seconds(9));
  table.release(first);
  pass(seconds(4));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  pass(seconds(1));
  EXPECT_FALSE(holds(owner, Mode::kEX));
}

TEST_F(LockTableOptions, WhoLostItsLockIsToldUntilItReleases) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kEX, seconds(5))), kOk);
  pass(seconds(5));
  for (const Mode mode : kAllModes) EXPECT_EQ(ask(owner, mode), LockErrc::kLost);
  EXPECT_EQ(table.renew(owner, seconds(1)), LockErrc::kLost);
  table.release(owner);
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
}

TEST_F(LockTableOptions, RenewStartsTheTtlAnew) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kEX, seconds(5))), kOk);
  pass(seconds(4));
  EXPECT_EQ(table.renew(owner, std::nullopt), kOk);
  pass(seconds(4));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_EQ(table.renew(owner, seconds(60)), kOk);
  pass(seconds(59));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  pass(seconds(1));
  EXPECT_EQ(observer.losses.size(), 1U);
}

TEST_F(LockTableOptions, RenewNeedsSomethingToRenew) {
  const OwnerId owner = open();
  EXPECT_EQ(table.renew(owner, seconds(5)), LockErrc::kInvalid);
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
  EXPECT_EQ(table.renew(owner, std::nullopt), LockErrc::kInvalid);
  EXPECT_EQ(table.renew(owner, seconds(5)), kOk);
  pass(seconds(5));
  EXPECT_EQ(observer.losses.size(), 1U);
}

TEST_F(LockTableOptions, AReleaseEndsTheTtl) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kEX, seconds(5))), kOk);
  table.release(owner);
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
  pass(seconds(60));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_EQ(timers.next(), std::nullopt);
}

TEST_F(LockTableOptions, ATtlThatEndsDuringAConversionEndsBoth) {
  holder(Mode::kPR);
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, with_ttl(Mode::kPR, seconds(5))), kOk);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  pass(seconds(5));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kLost}));
  EXPECT_EQ(observer.losses.size(), 1U);
  EXPECT_TRUE(free(owner));
}

TEST_F(LockTableOptions, LingerKeepsTheLockAfterTheCloseAndNoLonger) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  const OwnerId next = waiter(Mode::kEX);
  table.close(owner);
  pass(milliseconds(9999));
  EXPECT_TRUE(waits(next));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  pass(milliseconds(1));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
  EXPECT_EQ(table.find(owner), nullptr);
}

TEST_F(LockTableOptions, FromTheCloseOnTheLingerCountsAndNotTheTtl) {
  Request request = with_ttl(Mode::kEX, seconds(5));
  request.linger = seconds(10);
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, request), kOk);
  pass(seconds(4));
  table.close(owner);
  pass(milliseconds(9999));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  pass(milliseconds(1));
  EXPECT_EQ(table.find(owner), nullptr);
  EXPECT_THAT(observer.losses, IsEmpty());
}

TEST_F(LockTableOptions, AReleaseBeforeTheCloseEndsTheLinger) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  table.release(owner);
  table.close(owner);
  EXPECT_EQ(table.find(owner), nullptr);
  EXPECT_EQ(attempt(open(), Mode::kEX), kOk);
}

TEST_F(LockTableOptions, ResumeTakesUpWhatLingers) {
  const OwnerId owner = lingerer(Mode::kPW, seconds(10));
  const uint64_t token = table.find(owner)->token;
  const TimePoint since = table.find(owner)->since;
  const std::string key = key_of(owner);
  EXPECT_EQ(key.size(), 32U);
  pass(seconds(1));
  table.close(owner);
  const OwnerId heir = open();
  EXPECT_EQ(table.resume(heir, key, {kNobody, 1000, 1000}), kOk);
  EXPECT_TRUE(holds(heir, Mode::kPW));
  EXPECT_EQ(table.find(heir)->token, token);
  EXPECT_EQ(table.find(heir)->since, since);
  pass(hours(1));
  EXPECT_TRUE(holds(heir, Mode::kPW)) << "it is open again, and lingers no more";
  EXPECT_EQ(table.find(owner), nullptr);
}

TEST_F(LockTableOptions, WhatWasResumedLingersAgainUnderANewKey) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  const std::string key = key_of(owner);
  table.close(owner);
  const OwnerId heir = open();
  ASSERT_EQ(table.resume(heir, key, {kNobody, 1000, 1000}), kOk);
  const std::string second_key = key_of(heir);
  EXPECT_NE(second_key, key);
  table.close(heir);
  EXPECT_EQ(table.resume(open(), key, {kNobody, 1000, 1000}), LockErrc::kNotFound);
  EXPECT_EQ(table.resume(open(), second_key, {kNobody, 1000, 1000}), kOk);
}

TEST_F(LockTableOptions, ResumeCountsANameAlsoAboveALimitThatIsLowerNow) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10), 1000);
  const OwnerId other = open(kNobody, "other");
  ASSERT_EQ(ask(other, Mode::kEX), kOk);
  const std::string key = key_of(owner);
  table.close(owner);
  table.quota.limits = {1, 1, 1};
  const OwnerId heir = open();
  ASSERT_EQ(table.resume(heir, key, {kNobody, 1000, 1000}), kOk);
  table.release(heir);
  EXPECT_EQ(attempt(heir, Mode::kEX), LockErrc::kLimit) << "other is one";
  table.close(other);
  EXPECT_EQ(attempt(heir, Mode::kEX), kOk);
}

TEST_F(LockTableOptions, ResumeRefusesAForeignUserButNotRoot) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10), 1000);
  const std::string key = key_of(owner);
  table.close(owner);
  const OwnerId heir = open();
  EXPECT_EQ(table.resume(heir, key, {kNobody, 1001, 1001}), LockErrc::kNotYours);
  EXPECT_TRUE(free(heir));
  EXPECT_EQ(table.resume(heir, key, {kNobody, 0, 0}), kOk);
}

TEST_F(LockTableOptions, ResumeRefusesAWrongKeyAndAnotherLock) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  const std::string key = key_of(owner);
  table.close(owner);
  EXPECT_EQ(table.resume(open(), "", {}), LockErrc::kNotFound);
  EXPECT_EQ(table.resume(open(), key + "0", {}), LockErrc::kNotFound);
  EXPECT_EQ(table.resume(open(kNobody, "b"), key, {}), LockErrc::kNotFound);
}

TEST_F(LockTableOptions, ResumeRefusesWhatIsStillOpen) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  EXPECT_EQ(table.resume(open(), key_of(owner), {kNobody, 1000, 1000}), LockErrc::kBusy);
  EXPECT_EQ(table.resume(owner, key_of(owner), {kNobody, 1000, 1000}), LockErrc::kNotFound);
  EXPECT_TRUE(holds(owner, Mode::kEX));
}

TEST_F(LockTableOptions, ResumeRefusesAnOwnerThatHoldsOrWaits) {
  const OwnerId owner = lingerer(Mode::kPR, seconds(10));
  const std::string key = key_of(owner);
  table.close(owner);
  EXPECT_EQ(table.resume(holder(Mode::kPR), key, {kNobody, 1000, 1000}), LockErrc::kBusy);
  EXPECT_EQ(table.resume(waiter(Mode::kEX), key, {kNobody, 1000, 1000}), LockErrc::kBusy);
}

TEST_F(LockTableOptions, ResumeFindsNothingWhenTheLingerIsOver) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  const std::string key = key_of(owner);
  table.close(owner);
  pass(seconds(10));
  EXPECT_EQ(table.resume(open(), key, {kNobody, 1000, 1000}), LockErrc::kNotFound);
}

TEST_F(LockTableOptions, AResumedHoldIsCountedOnce) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  const std::string key = key_of(owner);
  pass(seconds(1));
  table.close(owner);
  const OwnerId heir = open();
  ASSERT_EQ(table.resume(heir, key, {kNobody, 1000, 1000}), kOk);
  pass(seconds(1));
  table.release(heir);
  EXPECT_EQ(lock().stats.holds, 1U);
  EXPECT_EQ(lock().stats.hold_total, seconds(2));
}

TEST_F(LockTableOptions, BreakTakesTheLockFromAllWhoHoldIt) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  const OwnerId null = holder(Mode::kNL);
  const OwnerId next = waiter(Mode::kEX);
  EXPECT_EQ(table.break_lock(lock(), "by root"), 2U);
  EXPECT_THAT(observer.losses, ElementsAre(Pair(a, "by root"), Pair(b, "by root")));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
  EXPECT_EQ(ask(a, Mode::kNL), LockErrc::kLost);
  EXPECT_EQ(ask(null, Mode::kNL), kOk);
  table.close(b);
  table.release(a);
  EXPECT_TRUE(holds(next, Mode::kEX));
}

TEST_F(LockTableOptions, BreakOfAFreeLockTakesNothing) {
  const OwnerId owner = open();
  EXPECT_EQ(table.break_lock(lock(), "x"), 0U);
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
}

TEST_F(LockTableOptions, BreakEndsWhatLingers) {
  const OwnerId owner = lingerer(Mode::kEX, seconds(10));
  table.close(owner);
  EXPECT_EQ(table.break_lock(lock(), "x"), 1U);
  EXPECT_EQ(table.find(owner), nullptr);
  EXPECT_EQ(timers.next(), std::nullopt);
  EXPECT_EQ(attempt(open(), Mode::kEX), kOk);
}

TEST_F(LockTableOptions, ANewModeBringsItsOwnOptions) {
  const OwnerId owner = open();
  Request first = with_ttl(Mode::kPR, seconds(5));
  first.note = "first";
  EXPECT_EQ(ask(owner, first), kOk);
  EXPECT_EQ(table.find(owner)->extras->note, "first");
  EXPECT_EQ(ask(owner, Mode::kEX), kOk);
  EXPECT_EQ(table.find(owner)->extras, nullptr);
  pass(seconds(60));
  EXPECT_TRUE(holds(owner, Mode::kEX));
}

}  // namespace
}  // namespace lockfs
