// SPDX-License-Identifier: MIT
// Requests that would not wait, over a backend that takes its time: they wait for an answer that
// is near, never for somebody else's wait.
#include "tests/core/claim_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;

class LockTableTry : public ClaimWorld {
 protected:
  /// An owner that tries, and waits for the claim's answer.
  OwnerId trier(Mode mode) {
    const OwnerId owner = open();
    EXPECT_EQ(attempt(owner, mode), std::nullopt);
    return owner;
  }
};

TEST_F(LockTableTry, TheBackendIsAskedNotToWaitEither) {
  const OwnerId owner = trier(Mode::kEX);
  EXPECT_TRUE(oldest().now);
  fail(LockErrc::kWouldBlock);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kWouldBlock}));
}

TEST_F(LockTableTry, IsGrantedWhenTheClaimIs) {
  const OwnerId owner = trier(Mode::kEX);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
}

TEST_F(LockTableTry, ThoseThatDoNotGoWithTheGrantAreRefusedThen) {
  const OwnerId reader = trier(Mode::kCR);
  const OwnerId same = trier(Mode::kPR);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{reader, kOk}));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_TRUE(oldest().now);
  fail(LockErrc::kWouldBlock);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{same, LockErrc::kWouldBlock}));
}

TEST_F(LockTableTry, ASecondThatExcludesTheFirstIsRefusedAtOnce) {
  trier(Mode::kEX);
  EXPECT_EQ(attempt(open(), Mode::kEX), LockErrc::kWouldBlock);
}

// After a server's restart nothing is granted for a while: who waits is asked for, and waits.
TEST_F(LockTableTry, ThatNothingIsGrantedYetIsToldToNobodyWhoWaits) {
  const OwnerId tries = trier(Mode::kEX);
  const OwnerId waits = waiter(Mode::kEX);
  fail(LockErrc::kUnreachable);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{tries, LockErrc::kUnreachable}));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_FALSE(oldest().now);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{waits, kOk}));
}

// The backend may not answer for as long as a cluster recovers.
TEST_F(LockTableTry, DoesNotWaitForTheAnswerForEver) {
  const OwnerId owner = trier(Mode::kEX);
  pass(LockTable::kImpatience - std::chrono::milliseconds(1));
  EXPECT_THAT(observer.take(), testing::IsEmpty());
  pass(std::chrono::milliseconds(1));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kUnreachable}));
  EXPECT_TRUE(oldest().cancelled);
  EXPECT_EQ(lock().stats.timeouts, 0U);
}

TEST_F(LockTableTry, DoesNotWaitForSomebodyElsesWait) {
  waiter(Mode::kPR);  // The backend's answer may take hours: another node holds it.
  EXPECT_EQ(attempt(open(), Mode::kCR), LockErrc::kWouldBlock);
}

TEST_F(LockTableTry, WaitsForAClaimThatIsBeingWeakened) {
  const OwnerId strong = waiter(Mode::kPW);
  grant();
  const OwnerId weak = open();
  EXPECT_EQ(ask(weak, Mode::kCR), kOk);
  table.release(strong);
  ASSERT_THAT(asks, SizeIs(1)) << "to weaken the claim; that answer is near";
  observer.take();
  const OwnerId owner = trier(Mode::kCR);
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
}

TEST_F(LockTableTry, IsRefusedWhenTheNextAcquireIsOneThatWaits) {
  const OwnerId first = trier(Mode::kCR);  // Asks without waiting.
  const OwnerId patient = waiter(Mode::kPR);
  const OwnerId second = trier(Mode::kCR);
  fail(LockErrc::kWouldBlock);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{first, LockErrc::kWouldBlock},
                                           Answer{second, LockErrc::kWouldBlock}));
  EXPECT_TRUE(waits(patient));
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_FALSE(oldest().now);
}

TEST_F(LockTableTry, IsRefusedWhenAfterAGrantTheNextAcquireIsOneThatWaits) {
  const OwnerId first = trier(Mode::kCR);
  const OwnerId patient = waiter(Mode::kPR);
  const OwnerId second = open();
  EXPECT_EQ(attempt(second, Mode::kPR), std::nullopt);
  grant();
  EXPECT_THAT(observer.take(),
              ElementsAre(Answer{first, kOk}, Answer{second, LockErrc::kWouldBlock}));
  EXPECT_TRUE(waits(patient));
}

TEST_F(LockTableTry, IsRefusedWhenALossMakesAnotherAskAndWait) {
  const OwnerId holder_here = waiter(Mode::kCR);
  grant();
  observer.take();
  const OwnerId first = trier(Mode::kPR);
  const OwnerId patient = waiter(Mode::kPR);
  const OwnerId second = trier(Mode::kPR);
  table.close(first);
  EXPECT_TRUE(oldest().cancelled);
  const ClaimId claim = lock().claim->id;
  asks.clear();
  events().lost(claim, "gone");
  EXPECT_EQ(observer.losses.size(), 1U);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, LockErrc::kWouldBlock}));
  EXPECT_TRUE(waits(patient));
  EXPECT_EQ(table.find(holder_here)->lost, true);
}

}  // namespace
}  // namespace lockfs
