// SPDX-License-Identifier: MIT
// The table over a backend that takes its time: claims asked for, granted, refused, lost, given up.
#include "tests/core/claim_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;

class LockTableClaim : public ClaimWorld {
 protected:
  OwnerId granted_owner(Mode mode, uint64_t tokens = 1) {
    return ClaimWorld::granted_owner(mode, tokens);
  }
};

TEST_F(LockTableClaim, AGrantWaitsForTheClaim) {
  const OwnerId owner = waiter(Mode::kEX);
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().name, "a");
  EXPECT_EQ(oldest().mode, Mode::kEX);
  EXPECT_FALSE(oldest().now);
  EXPECT_FALSE(lock().held());
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_EQ(table.find(owner)->token, 1U);
}

TEST_F(LockTableClaim, NullNeedsNoClaim) {
  EXPECT_EQ(ask(open(), Mode::kNL), kOk);
  EXPECT_THAT(asks, IsEmpty());
}

TEST_F(LockTableClaim, TheClaimIsTheJoinOfWhatIsHeld) {
  granted_owner(Mode::kCR);
  EXPECT_EQ(ask(open(), Mode::kCR), kOk) << "covered";
  const OwnerId reader = waiter(Mode::kPR);
  EXPECT_EQ(oldest().mode, Mode::kPR);
  grant();
  EXPECT_TRUE(holds(reader, Mode::kPR));
  EXPECT_EQ(ask(open(), Mode::kCR), kOk);
  EXPECT_THAT(asks, IsEmpty());
}

TEST_F(LockTableClaim, SlotsAreCountedInTheClaim) {
  const OwnerId one = open();
  EXPECT_EQ(ask(one, want_slot(3)), std::nullopt);
  EXPECT_EQ(oldest().slots, 1U);
  EXPECT_EQ(oldest().size, 3U);
  grant();
  const OwnerId two = open();
  EXPECT_EQ(ask(two, want_slot(3)), std::nullopt);
  EXPECT_EQ(oldest().slots, 2U) << "in all";
  EXPECT_EQ(lock().slots_held, 1U) << "others may have the rest";
  grant();
  EXPECT_EQ(lock().slots_held, 2U);
  table.close(one);
  EXPECT_EQ(oldest().slots, 1U) << "what is not needed is given back";
  grant();
  table.close(two);
  EXPECT_THAT(released, SizeIs(1));
}

TEST_F(LockTableClaim, WhoHoldsExTowardsOthersGivesOutSlotsAndThenHasSlotsOnly) {
  const OwnerId owner = granted_owner(Mode::kEX);
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  EXPECT_EQ(oldest().slots, 1U);
  EXPECT_EQ(ask(open(), want_slot(2)), std::nullopt) << "that is on its way";
  grant();
  EXPECT_EQ(oldest().slots, 2U);
  grant();
  EXPECT_EQ(lock().slots_held, 2U);
}

TEST_F(LockTableClaim, AnotherSizeElsewhereIsInvalid) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, want_slot(3)), std::nullopt);
  fail(LockErrc::kInvalid);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kInvalid}));
}

TEST_F(LockTableClaim, ABackendWithoutSlotsSaysSoAtOnce) {
  change_traits().slots = false;
  EXPECT_EQ(ask(open(), want_slot(2)), LockErrc::kNotSupported);
  EXPECT_THAT(asks, IsEmpty());
}

TEST_F(LockTableClaim, ABackendWithoutSharedModesIsAskedForExAlone) {
  change_traits().shared_modes = false;
  const OwnerId reader = waiter(Mode::kCR);
  EXPECT_EQ(oldest().mode, Mode::kEX);
  grant();
  EXPECT_TRUE(holds(reader, Mode::kCR));
  EXPECT_EQ(ask(open(), Mode::kPR), kOk) << "on this mount all six modes still work";
  EXPECT_THAT(asks, IsEmpty());
}

TEST_F(LockTableClaim, IsGivenUpWhenNobodyHolds) {
  const OwnerId owner = granted_owner(Mode::kEX);
  const ClaimId claim = lock().claim->id;
  table.release(owner);
  EXPECT_THAT(released, ElementsAre(claim));
  EXPECT_EQ(lock().claim, nullptr);
}

TEST_F(LockTableClaim, IsKeptForTheNextWaiterHere) {
  const OwnerId owner = granted_owner(Mode::kEX, 2);
  const OwnerId next = waiter(Mode::kEX);
  table.release(owner);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
  EXPECT_THAT(released, IsEmpty());
  EXPECT_EQ(table.find(next)->token, 2U);
}

TEST_F(LockTableClaim, IsAskedForAgainWhenItsTokensAreUsedUp) {
  const OwnerId owner = granted_owner(Mode::kEX, 1);
  const OwnerId next = waiter(Mode::kEX);
  table.release(owner);
  EXPECT_TRUE(waits(next));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kEX);
  grant();
  EXPECT_EQ(table.find(next)->token, 2U);
}

TEST_F(LockTableClaim, IsWeakenedWhenTheStrongestLeaves) {
  const OwnerId strong = granted_owner(Mode::kPW);
  EXPECT_EQ(ask(open(), Mode::kCR), kOk);
  table.release(strong);
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kCR);
  grant();
  EXPECT_EQ(lock().claimed(), Mode::kCR);
  EXPECT_THAT(asks, IsEmpty());
}

// Else each of them would find it out for itself, one after the other.
TEST_F(LockTableClaim, ThatTheBackendIsOutOfReachIsToldToAllWhoNeedIt) {
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kPR);
  fail(LockErrc::kUnreachable);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{first, LockErrc::kUnreachable},
                                           Answer{second, LockErrc::kUnreachable}));
  EXPECT_EQ(ask(open(), Mode::kEX), std::nullopt) << "whoever comes later asks again";
  EXPECT_THAT(asks, SizeIs(1));
}

TEST_F(LockTableClaim, AFailureFailsTheOneWhoAskedAlone) {
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kEX);
  fail(LockErrc::kInvalid);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{first, LockErrc::kInvalid}));
  ASSERT_THAT(asks, SizeIs(1)) << "the second asks for itself";
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, kOk}));
}

TEST_F(LockTableClaim, AFailedConversionKeepsWhatWasHeld) {
  const OwnerId owner = granted_owner(Mode::kPR);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  EXPECT_EQ(oldest().mode, Mode::kEX);
  fail(LockErrc::kLimit);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kLimit}));
  EXPECT_TRUE(holds(owner, Mode::kPR));
  EXPECT_EQ(lock().claimed(), Mode::kPR);
  EXPECT_THAT(released, IsEmpty());
}

TEST_F(LockTableClaim, ARefusalAtOnceIsTheAnswer) {
  refuse_at_once = LockErrc::kUnreachable;
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kEX), LockErrc::kUnreachable);
  EXPECT_TRUE(free(owner));
  EXPECT_EQ(lock().claim, nullptr);
  refuse_at_once.reset();
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
}

TEST_F(LockTableClaim, ARefusalAtOnceOfEveryWaiterEndsThemAll) {
  const OwnerId owner = granted_owner(Mode::kEX);
  const OwnerId a = waiter(Mode::kEX);
  const OwnerId b = waiter(Mode::kEX);
  refuse_at_once = LockErrc::kUnreachable;
  table.release(owner);
  EXPECT_THAT(observer.take(),
              ElementsAre(Answer{a, LockErrc::kUnreachable}, Answer{b, LockErrc::kUnreachable}));
  EXPECT_THAT(released, SizeIs(1));
}

TEST_F(LockTableClaim, ACancelIsPassedOnAndMayLoseAgainstTheGrant) {
  const OwnerId owner = waiter(Mode::kEX);
  const ClaimId claim = lock().claim->id;
  table.cancel(owner);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kInterrupted}));
  EXPECT_TRUE(oldest().cancelled);
  grant();
  EXPECT_THAT(observer.answers, IsEmpty());
  EXPECT_THAT(released, ElementsAre(claim)) << "granted to nobody, so given back";
  EXPECT_FALSE(lock().held());
}

TEST_F(LockTableClaim, AGrantThatBeatTheCancelServesTheNext) {
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kEX);
  table.cancel(first);
  observer.take();
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, kOk}));
}

TEST_F(LockTableClaim, ACancelThatWonLetsTheNextAskForItself) {
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kPR);
  table.cancel(first);
  observer.take();
  EXPECT_THAT(asks, SizeIs(1)) << "one acquire at a time";
  fail(LockErrc::kInterrupted);
  EXPECT_TRUE(waits(second));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kPR);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, kOk}));
}

TEST_F(LockTableClaim, ATimeoutCancelsTheAcquire) {
  const OwnerId owner = open();
  Request request = want(Mode::kEX);
  request.timeout = std::chrono::seconds(1);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(std::chrono::seconds(1));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kTimedOut}));
  EXPECT_TRUE(oldest().cancelled);
}

TEST_F(LockTableClaim, ACloseDuringTheAcquireLeavesNothingBehind) {
  const OwnerId owner = waiter(Mode::kEX);
  table.close(owner);
  EXPECT_TRUE(oldest().cancelled);
  fail(LockErrc::kInterrupted);
  EXPECT_EQ(lock().claim, nullptr);
  EXPECT_EQ(table.idle(), 1U);
  EXPECT_THAT(observer.answers, IsEmpty());
}

TEST_F(LockTableClaim, ARestartFindsTheAnswerOfItsFirstAcquire) {
  const OwnerId owner = waiter(Mode::kEX);
  table.cancel(owner);
  observer.take();
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
}

TEST_F(LockTableClaim, ALostClaimTakesTheLockFromAllHolders) {
  const OwnerId a = granted_owner(Mode::kPR);
  const OwnerId b = open();
  EXPECT_EQ(ask(b, Mode::kPR), kOk);
  events().lost(lock().claim->id, "the server forgot us");
  EXPECT_THAT(observer.losses, ElementsAre(Pair(a, HasSubstr("forgot")), Pair(b, testing::_)));
  EXPECT_FALSE(lock().held());
  EXPECT_THAT(released, IsEmpty()) << "nothing more is owed for it";
  EXPECT_EQ(ask(a, Mode::kPR), LockErrc::kLost);
}

TEST_F(LockTableClaim, AfterALossTheWaitersAskAnew) {
  granted_owner(Mode::kEX);
  const OwnerId next = waiter(Mode::kEX);
  const ClaimId old = lock().claim->id;
  events().lost(old, "gone");
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_NE(oldest().claim, old);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
}

TEST_F(LockTableClaim, ALossDuringAConversionEndsBoth) {
  const OwnerId owner = granted_owner(Mode::kPR);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  const ClaimId old = lock().claim->id;
  asks.clear();  // Nothing more is owed.
  events().lost(old, "gone");
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kLost}));
  EXPECT_THAT(asks, IsEmpty());
}

TEST_F(LockTableClaim, LateAnswersAboutAClaimThatIsGoneAreHarmless) {
  const OwnerId owner = granted_owner(Mode::kEX);
  const ClaimId old = lock().claim->id;
  table.release(owner);
  const OwnerId next = granted_owner(Mode::kPR);
  EXPECT_NE(lock().claim->id, old);
  events().granted(old, Mode::kEX, {50, 60});
  events().failed(old, LockErrc::kUnreachable);
  events().lost(old, "late");
  events().contended(old);
  events().granted(ClaimId::kNone, Mode::kEX, {});
  EXPECT_TRUE(holds(next, Mode::kPR));
  EXPECT_EQ(lock().claimed(), Mode::kPR);
  EXPECT_THAT(observer.losses, IsEmpty());
  EXPECT_THAT(observer.answers, IsEmpty());
}

TEST_F(LockTableClaim, AWaiterThatIsGoneGivesItsTurnToTheNext) {
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kEX);
  const OwnerId third = waiter(Mode::kEX);
  table.close(first);
  table.close(second);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{third, kOk}));
}

TEST_F(LockTableClaim, NewcomersWaitBehindTheAcquireUnderWay) {
  const OwnerId first = waiter(Mode::kPR);
  const OwnerId second = waiter(Mode::kPR);
  EXPECT_THAT(asks, SizeIs(1));
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{first, kOk}, Answer{second, kOk}));
}

TEST_F(LockTableClaim, WhoWantsMoreThanTheClaimAsksForMoreWhenItIsThere) {
  const OwnerId reader = waiter(Mode::kCR);
  const OwnerId writer = waiter(Mode::kPW);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{reader, kOk}));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kPW);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{writer, kOk}));
}

TEST_F(LockTableClaim, AGrantThatALimitRefusesGivesTheClaimBack) {
  table.quota.limits = {100, 100, 0};
  const OwnerId owner = waiter(Mode::kEX);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kLimit}));
  EXPECT_THAT(released, SizeIs(1));
}

TEST_F(LockTableClaim, AWaiterThatALimitRefusesGivesTheClaimBack) {
  table.quota.limits = {100, 0, 100};
  EXPECT_EQ(ask(open(), Mode::kEX), LockErrc::kLimit);
  ASSERT_THAT(asks, SizeIs(1));
  grant();
  EXPECT_THAT(released, SizeIs(1));
  EXPECT_THAT(observer.answers, IsEmpty());
}

TEST_F(LockTableClaim, AConversionThatIsCancelledLeavesNoClaimWeakerThanWhatIsHeld) {
  const OwnerId owner = granted_owner(Mode::kPR);
  EXPECT_EQ(ask(owner, Mode::kCW), std::nullopt);
  EXPECT_EQ(oldest().mode, Mode::kPW) << "a claim of CW would let others write while it reads";
  table.cancel(owner);
  grant();
  EXPECT_TRUE(holds(owner, Mode::kPR));
  EXPECT_TRUE(covers(lock().claimed(), Mode::kPR));
}

TEST_F(LockTableClaim, MoreTokensAreNotBoughtWithAWeakerClaim) {
  const OwnerId owner = granted_owner(Mode::kEX, 1);
  EXPECT_EQ(ask(owner, Mode::kPW), std::nullopt) << "its one token is used up";
  EXPECT_EQ(oldest().mode, Mode::kEX);
  table.cancel(owner);
  grant();
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_EQ(lock().claimed(), Mode::kEX);
}

TEST_F(LockTableClaim, AGrantAtOnceThatBringsNoTokenIsNotTakenForTheLock) {
  grant_at_once_with = 0;
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kEX), LockErrc::kNotSupported);
  EXPECT_TRUE(free(owner));
  EXPECT_EQ(ask(owner, Mode::kPR), kOk) << "this needs none";
}

TEST_F(LockTableClaim, AWeakeningThatFailsIsNotTriedForEver) {
  const OwnerId strong = granted_owner(Mode::kPW);
  const OwnerId weak = open();
  EXPECT_EQ(ask(weak, Mode::kCR), kOk);
  table.release(strong);
  int tries = 0;
  while (!asks.empty() && tries < 10) {
    ++tries;
    fail(LockErrc::kUnreachable);
  }
  EXPECT_LT(tries, 10) << "the loop would spin on a server that is away";
  EXPECT_TRUE(holds(weak, Mode::kCR));
  table.release(weak);
  EXPECT_THAT(released, SizeIs(1));
}

}  // namespace
}  // namespace lockfs
