// SPDX-License-Identifier: MIT
// A deadlock that a backend sees: whom another node has just killed may still be known to wait.
#include "tests/core/claim_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;

class LockTableSecondLook : public ClaimWorld {};

TEST_F(LockTableSecondLook, ADeadlockThatABackendSeesIsBelievedAtTheSecondLook) {
  const OwnerId owner = granted_owner(Mode::kPR, 1);
  for (const bool is_one : {true, false}) {
    EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
    fail(LockErrc::kDeadlock);
    EXPECT_THAT(observer.take(), IsEmpty());
    EXPECT_THAT(asks, IsEmpty());
    pass(LockTable::kSecondLook);
    ASSERT_THAT(asks, SizeIs(1));
    is_one ? fail(LockErrc::kDeadlock) : grant();
    EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, is_one ? LockErrc::kDeadlock : kOk}));
    EXPECT_EQ(lock().stats.deadlocks, 1U);
    EXPECT_TRUE(holds(owner, is_one ? Mode::kPR : Mode::kEX));
  }
}

TEST_F(LockTableSecondLook, WhoComesBeforeTheSecondLookWaitsForItToo) {
  const OwnerId owner = granted_owner(Mode::kPR, 1);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  fail(LockErrc::kDeadlock);
  const OwnerId next = waiter(Mode::kPR);
  EXPECT_EQ(attempt(open(), Mode::kPR), LockErrc::kWouldBlock);
  EXPECT_THAT(asks, IsEmpty());
  pass(LockTable::kSecondLook);
  ASSERT_THAT(asks, SizeIs(1));
  fail(LockErrc::kDeadlock);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kDeadlock}, Answer{next, kOk}));
}

TEST_F(LockTableSecondLook, TheSecondLookMayBeAnsweredAtOnce) {
  const OwnerId owner = granted_owner(Mode::kPR, 1);
  for (const bool is_one : {true, false}) {
    EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
    fail(LockErrc::kDeadlock);
    if (is_one) refuse_at_once = LockErrc::kDeadlock;
    if (!is_one) grant_at_once_with = 1;
    pass(LockTable::kSecondLook);
    EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, is_one ? LockErrc::kDeadlock : kOk}));
    refuse_at_once.reset();
  }
}

TEST_F(LockTableSecondLook, WhoGoesBeforeTheSecondLookIsNotAskedForAgain) {
  const OwnerId owner = granted_owner(Mode::kPR, 1);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  fail(LockErrc::kDeadlock);
  table.cancel(owner);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kInterrupted}));
  pass(LockTable::kSecondLook);
  EXPECT_THAT(asks, IsEmpty());
  EXPECT_TRUE(holds(owner, Mode::kPR));
}

// Another node's conversion waits for the claim that nobody here needs any more.
TEST_F(LockTableSecondLook, AClaimThatNobodyNeedsIsGivenUpAndAskedForAnew) {
  for (const bool at_once : {false, true}) {
    const OwnerId holds = granted_owner(Mode::kPR, 1);
    const OwnerId next = waiter(Mode::kEX);
    const OwnerId last = waiter(Mode::kEX);
    const ClaimId before = lock().claim->id;
    released.clear();
    refuse_once = true;
    if (at_once) refuse_at_once = LockErrc::kDeadlock;
    table.release(holds);
    if (!at_once) {
      ASSERT_THAT(asks, SizeIs(1));
      fail(LockErrc::kDeadlock);
    }
    EXPECT_THAT(released, ElementsAre(before));
    EXPECT_THAT(observer.take(), IsEmpty());
    ASSERT_THAT(asks, SizeIs(1));
    EXPECT_NE(oldest().claim, before);
    grant();
    EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
    table.cancel(last);
    table.release(next);
    observer.take();
  }
}

TEST_F(LockTableSecondLook, WhatIsLostBeforeItIsGivenUpToo) {
  const OwnerId owner = granted_owner(Mode::kPR, 1);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  fail(LockErrc::kDeadlock);
  const ClaimId claim = lock().claim->id;
  events().lost(claim, "gone");
  EXPECT_THAT(released, ElementsAre(claim));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kLost}));
  pass(LockTable::kSecondLook);
  EXPECT_THAT(asks, IsEmpty());
}

}  // namespace
}  // namespace lockfs
