// SPDX-License-Identifier: MIT
// The place of an interrupted wait, kept for the system call that the kernel restarts.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
constexpr auto kOk = LockErrc::kOk;

class LockTablePlace : public TableWorld {
 protected:
  void interrupt(OwnerId owner) {
    table.cancel(owner);
    EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kInterrupted}));
  }
};

TEST_F(LockTablePlace, ARestartedWaitGoesOnWhereItWas) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId restarted = waiter(Mode::kEX);
  const OwnerId behind = waiter(Mode::kEX);
  interrupt(restarted);
  EXPECT_EQ(ask(restarted, Mode::kEX), std::nullopt);
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{restarted, kOk}));
  EXPECT_TRUE(waits(behind));
}

TEST_F(LockTablePlace, ThePlaceIsGoneAfterASecond) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId slow = waiter(Mode::kEX);
  const OwnerId behind = waiter(Mode::kEX);
  interrupt(slow);
  pass(milliseconds(1000));
  EXPECT_EQ(ask(slow, Mode::kEX), std::nullopt);
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{behind, kOk}));
}

TEST_F(LockTablePlace, ThePlaceIsThereUntilTheSecondIsOver) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId restarted = waiter(Mode::kEX);
  waiter(Mode::kEX);
  interrupt(restarted);
  pass(milliseconds(999));
  EXPECT_EQ(ask(restarted, Mode::kEX), std::nullopt);
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{restarted, kOk}));
}

TEST_F(LockTablePlace, ItIsGrantedAtOnceWhenItsTurnCameMeanwhile) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId restarted = waiter(Mode::kEX);
  interrupt(restarted);
  table.release(first);
  EXPECT_EQ(ask(restarted, Mode::kEX), std::nullopt);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{restarted, kOk}));
  EXPECT_TRUE(holds(restarted, Mode::kEX));
}

TEST_F(LockTablePlace, WhoIsAwayHoldsNobodyUp) {
  const OwnerId first = holder(Mode::kPR);
  const OwnerId away = waiter(Mode::kEX);
  table.cancel(away);
  observer.take();
  EXPECT_EQ(ask(open(), Mode::kPR), kOk);
  table.release(first);
}

TEST_F(LockTablePlace, ARestartAsATryGivesThePlaceUp) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId impatient = waiter(Mode::kEX);
  const OwnerId behind = waiter(Mode::kEX);
  interrupt(impatient);
  EXPECT_EQ(attempt(impatient, Mode::kEX), LockErrc::kWouldBlock);
  EXPECT_EQ(ask(impatient, Mode::kEX), std::nullopt);
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{behind, kOk}));
}

TEST_F(LockTablePlace, ARestartedConversionThatFitsMeanwhileIsGranted) {
  const OwnerId other = holder(Mode::kPR);
  const OwnerId owner = holder(Mode::kPR);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  interrupt(owner);
  table.release(other);
  const auto answer = ask(owner, Mode::kEX);
  EXPECT_TRUE(answer == kOk || observer.take() == std::vector{(Answer{owner, kOk})})
      << "nobody else holds it, and yet it waits";
  EXPECT_TRUE(holds(owner, Mode::kEX));
}

TEST_F(LockTablePlace, ARestartedConversionKeepsItsPlaceAmongConversions) {
  const OwnerId blocker = holder(Mode::kPR);
  const OwnerId a = holder(Mode::kCR);
  const OwnerId b = holder(Mode::kCR);
  EXPECT_EQ(ask(a, Mode::kCW), std::nullopt);
  EXPECT_EQ(ask(b, Mode::kCW), std::nullopt);
  interrupt(a);
  EXPECT_EQ(ask(a, Mode::kCW), std::nullopt);
  table.release(blocker);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}, Answer{b, kOk}));
}

TEST_F(LockTablePlace, WhoSaysUnAfterTheInterruptionHasNoPlaceLeft) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId quitter = waiter(Mode::kEX);
  const OwnerId behind = waiter(Mode::kEX);
  interrupt(quitter);
  table.release(quitter);
  EXPECT_EQ(ask(quitter, Mode::kEX), std::nullopt);
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{behind, kOk}));
}

TEST_F(LockTablePlace, ARestartedWaitHasItsTimeoutAnew) {
  holder(Mode::kEX);
  const OwnerId owner = open();
  Request request = want(Mode::kEX);
  request.timeout = milliseconds(100);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(milliseconds(60));
  interrupt(owner);
  EXPECT_EQ(ask(owner, request), std::nullopt);
  pass(milliseconds(60));
  EXPECT_TRUE(waits(owner));
  pass(milliseconds(40));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, LockErrc::kTimedOut}));
}

}  // namespace
}  // namespace lockfs
