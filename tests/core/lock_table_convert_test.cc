// SPDX-License-Identifier: MIT
// Conversions: up, down, in turn, against each other, and taken back.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
constexpr auto kOk = LockErrc::kOk;

class LockTableConvert : public TableWorld {
 protected:
  OwnerId converter(OwnerId owner, Mode mode) {
    EXPECT_EQ(ask(owner, mode), std::nullopt);
    return owner;
  }
};

TEST_F(LockTableConvert, ASoleHolderConvertsToEveryModeAtOnce) {
  for (const Mode from : kAllModes) {
    for (const Mode to : kAllModes) {
      const OwnerId owner = holder(from);
      EXPECT_EQ(ask(owner, to), kOk) << from << " to " << to;
      EXPECT_TRUE(holds(owner, to));
      table.close(owner);
    }
  }
}

TEST_F(LockTableConvert, TheOldModeStaysUntilTheNewOneIsGranted) {
  const OwnerId other = holder(Mode::kPR);
  const OwnerId owner = converter(holder(Mode::kPR), Mode::kEX);
  EXPECT_TRUE(holds(owner, Mode::kPR));
  EXPECT_EQ(attempt(open(), Mode::kCW), LockErrc::kWouldBlock);
  table.release(other);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
  EXPECT_TRUE(holds(owner, Mode::kEX));
}

TEST_F(LockTableConvert, AFailedTryKeepsTheOldMode) {
  holder(Mode::kPR);
  const OwnerId owner = holder(Mode::kPR);
  EXPECT_EQ(attempt(owner, Mode::kEX), LockErrc::kWouldBlock);
  EXPECT_TRUE(holds(owner, Mode::kPR));
}

TEST_F(LockTableConvert, GoingDownLetsWaitersIn) {
  const OwnerId owner = holder(Mode::kEX);
  const OwnerId a = waiter(Mode::kPR);
  const OwnerId b = waiter(Mode::kCR);
  const OwnerId c = waiter(Mode::kPW);
  EXPECT_EQ(ask(owner, Mode::kPR), kOk);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}, Answer{b, kOk}));
  EXPECT_TRUE(waits(c));
}

TEST_F(LockTableConvert, GoingDownToNullFreesTheLock) {
  const OwnerId owner = holder(Mode::kEX);
  const OwnerId next = waiter(Mode::kEX);
  EXPECT_EQ(ask(owner, Mode::kNL), kOk);
  EXPECT_TRUE(holds(owner, Mode::kNL));
  EXPECT_TRUE(holds(next, Mode::kEX));
}

TEST_F(LockTableConvert, ConversionsGoBeforeNewRequests) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  const OwnerId first_in_queue = waiter(Mode::kEX);
  converter(b, Mode::kPW);
  table.release(a);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{b, kOk}));
  EXPECT_TRUE(waits(first_in_queue));
}

TEST_F(LockTableConvert, AConversionThatFitsDoesNotQueueBehindNewRequests) {
  const OwnerId a = holder(Mode::kCR);
  waiter(Mode::kEX);
  EXPECT_EQ(ask(a, Mode::kPR), kOk);
}

TEST_F(LockTableConvert, FromNullItIsANewRequest) {
  holder(Mode::kPR);
  const OwnerId null = holder(Mode::kNL);
  const OwnerId writer = waiter(Mode::kEX);
  EXPECT_EQ(ask(null, Mode::kPR), std::nullopt) << "it would overtake the writer";
  EXPECT_THAT(lock().waiting_in_order(), testing::SizeIs(2));
  EXPECT_EQ(lock().waiting_in_order().front()->id, writer);
}

TEST_F(LockTableConvert, ANewRequestWaitsBehindAConversion) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = converter(holder(Mode::kPR), Mode::kEX);
  const OwnerId reader = waiter(Mode::kPR);
  table.release(a);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{b, kOk}));
  EXPECT_TRUE(waits(reader));
}

TEST_F(LockTableConvert, TwoThatBlockEachOtherEndInDeadlockForTheLater) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  converter(a, Mode::kEX);
  EXPECT_EQ(ask(b, Mode::kEX), LockErrc::kDeadlock);
  EXPECT_TRUE(holds(b, Mode::kPR)) << "the one refused keeps what it had";
  EXPECT_EQ(lock().stats.deadlocks, 1U);
  table.release(b);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}));
}

TEST_F(LockTableConvert, OneThatTheOtherDoesNotBlockIsNoDeadlock) {
  const OwnerId a = holder(Mode::kCR);
  const OwnerId b = holder(Mode::kPR);
  converter(a, Mode::kCW);            // Waits for b's PR.
  EXPECT_EQ(ask(b, Mode::kPW), kOk);  // a's CR does not block it: it waits for nobody.
  EXPECT_EQ(ask(b, Mode::kCR), kOk);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}));
}

TEST_F(LockTableConvert, ThreeInARingEndInDeadlockForTheLast) {
  // a waits for c alone, b for c alone; when c waits for either, the ring closes.
  const OwnerId a = holder(Mode::kCR);
  const OwnerId b = holder(Mode::kCR);
  const OwnerId c = holder(Mode::kPR);
  converter(a, Mode::kCW);
  converter(b, Mode::kCW);
  EXPECT_EQ(ask(c, Mode::kEX), LockErrc::kDeadlock);
  EXPECT_TRUE(waits(a));
  EXPECT_TRUE(waits(b));
  table.release(c);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}, Answer{b, kOk}));
}

// All that three holders can want: what is accepted must end when the others let go, and what is
// refused must be a ring.
TEST_F(LockTableConvert, OfThreeConvertersNoneHangsAndNoneIsRefusedForNothing) {
  size_t refused = 0;
  for (int code = 0; code < 6 * 6 * 6 * 6 * 6 * 6; ++code) {
    std::array<Mode, 6> digits{};
    for (int i = 0, rest = code; i < 6; ++i, rest /= 6) {
      digits.at(static_cast<size_t>(i)) = kAllModes.at(static_cast<size_t>(rest % 6));
    }
    const auto [h1, h2, h3, w1, w2, w3] = digits;
    if (!compatible(h1, h2) || !compatible(h1, h3) || !compatible(h2, h3)) continue;
    if (h1 == Mode::kNL || h2 == Mode::kNL || h3 == Mode::kNL) continue;
    const std::array<OwnerId, 3> owners = {holder(h1), holder(h2), holder(h3)};
    const std::array<Mode, 3> wants = {w1, w2, w3};
    for (size_t i = 0; i < 3; ++i) {
      const auto answer = ask(owners.at(i), wants.at(i));
      if (answer != LockErrc::kDeadlock) continue;
      ++refused;
      const Mode mine = table.find(owners.at(i))->held.mode;
      // Of modes that stand together each ring holds a ring of two.
      const bool ring = std::any_of(owners.begin(), owners.end(), [&](OwnerId other) {
        const Owner& o = *table.find(other);
        return other != owners.at(i) && o.wait && !compatible(wants.at(i), o.held.mode) &&
               !compatible(o.wait->request.want.mode, mine);
      });
      EXPECT_TRUE(ring) << code;
    }
    for (int round = 0; round < 3; ++round) {
      for (const OwnerId owner : owners) {
        if (!waits(owner)) table.release(owner);
      }
    }
    for (const OwnerId owner : owners) {
      EXPECT_TRUE(free(owner)) << code;
      table.close(owner);
    }
  }
  EXPECT_GT(refused, 100U);
}

TEST_F(LockTableConvert, AHolderThatDoesNotConvertIsNoDeadlock) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  const OwnerId c = holder(Mode::kPR);
  converter(a, Mode::kPW);  // b and c can still let go.
  table.release(b);
  EXPECT_TRUE(waits(a));
  table.release(c);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}));
}

TEST_F(LockTableConvert, AReleaseTurnsAWaitingConversionIntoARequestAtTheEnd) {
  const OwnerId other = holder(Mode::kPR);
  const OwnerId owner = converter(holder(Mode::kPR), Mode::kEX);
  const OwnerId before = waiter(Mode::kEX);
  table.release(owner);
  EXPECT_TRUE(waits(owner));
  EXPECT_FALSE(table.find(owner)->holding);
  table.release(other);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{before, kOk}));
  table.release(before);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{owner, kOk}));
  EXPECT_TRUE(holds(owner, Mode::kEX));
}

TEST_F(LockTableConvert, AReleaseDuringAWaitingConversionLetsOthersIn) {
  holder(Mode::kCR);
  const OwnerId owner = converter(holder(Mode::kPR), Mode::kEX);
  const OwnerId other = waiter(Mode::kCW);  // Behind the conversion, and held off by PR.
  table.release(owner);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{other, kOk}));
  EXPECT_TRUE(waits(owner));
}

TEST_F(LockTableConvert, DropFirstGivesUpBeforeItWaits) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  Request upgrade = want(Mode::kEX);
  upgrade.drop_first = true;
  EXPECT_EQ(ask(a, upgrade), std::nullopt);
  EXPECT_FALSE(table.find(a)->holding);
  EXPECT_EQ(ask(b, upgrade), kOk) << "no deadlock: a holds nothing, and b need not wait";
  EXPECT_TRUE(waits(a));
  table.release(b);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}));
}

TEST_F(LockTableConvert, DropFirstLosesTheOldModeEvenIfItWouldNotWait) {
  holder(Mode::kPR);
  const OwnerId b = holder(Mode::kPR);
  Request upgrade = trying(want(Mode::kEX));
  upgrade.drop_first = true;
  EXPECT_EQ(ask(b, upgrade), LockErrc::kWouldBlock);
  EXPECT_TRUE(free(b)) << "as flock(2) documents it";
}

TEST_F(LockTableConvert, DropFirstGivesUpNothingWhenItNeedNotWait) {
  const OwnerId a = holder(Mode::kPR);
  const OwnerId writer = waiter(Mode::kEX);
  Request upgrade = want(Mode::kEX);
  upgrade.drop_first = true;
  EXPECT_EQ(ask(a, upgrade), kOk) << "as flock(2) does on tmpfs, whoever waits";
  EXPECT_TRUE(waits(writer));
}

TEST_F(LockTableConvert, DropFirstKeepsWhatCoversTheWish) {
  const OwnerId a = holder(Mode::kEX);
  const OwnerId writer = waiter(Mode::kEX);
  Request down = want(Mode::kPR);
  down.drop_first = true;
  EXPECT_EQ(ask(a, down), kOk);
  EXPECT_TRUE(holds(a, Mode::kPR));
  EXPECT_TRUE(waits(writer));
}

TEST_F(LockTableConvert, UndoTakesAnUpgradeBack) {
  const OwnerId other = holder(Mode::kPR);
  const OwnerId owner = converter(holder(Mode::kPR), Mode::kEX);
  const OwnerId reader = waiter(Mode::kPR);
  table.release(other);
  EXPECT_TRUE(holds(owner, Mode::kEX));
  observer.take();
  table.undo(owner);
  EXPECT_TRUE(holds(owner, Mode::kPR));
  EXPECT_THAT(observer.take(), ElementsAre(Answer{reader, kOk}));
}

TEST_F(LockTableConvert, UndoOfAFirstGrantFreesTheLock) {
  const OwnerId other = holder(Mode::kEX);
  const OwnerId owner = waiter(Mode::kEX);
  const OwnerId next = waiter(Mode::kEX);
  table.release(other);
  table.undo(owner);
  EXPECT_TRUE(free(owner));
  EXPECT_TRUE(holds(next, Mode::kEX));
}

TEST_F(LockTableConvert, UndoOfADowngradeNeverMakesTwoThatExclude) {
  const OwnerId owner = holder(Mode::kEX);
  const OwnerId reader = waiter(Mode::kPR);
  EXPECT_EQ(ask(owner, Mode::kPR), kOk);
  EXPECT_TRUE(holds(reader, Mode::kPR));
  table.undo(owner);
  EXPECT_TRUE(free(owner));
  EXPECT_TRUE(holds(reader, Mode::kPR));
}

TEST_F(LockTableConvert, UndoNeverPutsASlotBesideAMode) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  EXPECT_EQ(ask(owner, Mode::kCW), kOk);
  holder(Mode::kCW);
  table.undo(owner);
  EXPECT_EQ(lock().slots_held, 0U) << "a slot goes with no other mode";
}

TEST_F(LockTableConvert, UndoNeverPutsAModeBesideASlot) {
  const OwnerId owner = holder(Mode::kCR);
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  EXPECT_EQ(ask(open(), want_slot(2)), kOk);
  table.undo(owner);
  EXPECT_FALSE(holds(owner, Mode::kCR));
  EXPECT_EQ(lock().slots_held, 1U);
}

TEST_F(LockTableConvert, ConversionsWaitInTheOrderTheyCame) {
  const OwnerId blocker = holder(Mode::kPR);
  const OwnerId a = converter(holder(Mode::kCR), Mode::kCW);
  const OwnerId b = converter(holder(Mode::kCR), Mode::kCW);
  table.release(blocker);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}, Answer{b, kOk}));
}

}  // namespace
}  // namespace lockfs
