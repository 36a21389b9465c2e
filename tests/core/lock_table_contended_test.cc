// SPDX-License-Identifier: MIT
// A claim that another node waits for: a few turns more here, then it is given up.
#include "tests/core/claim_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;

class LockTableContended : public ClaimWorld {
 protected:
  OwnerId granted_owner(Mode mode, uint64_t tokens = 100) {
    return ClaimWorld::granted_owner(mode, tokens);
  }
  void contend() { events().contended(lock().claim->id); }
};

TEST_F(LockTableContended, ItIsGivenUpAfterAFewTurns) {
  OwnerId holder = granted_owner(Mode::kEX);
  contend();
  const ClaimId claim = lock().claim->id;
  OwnerId next = waiter(Mode::kEX);
  for (uint32_t turn = 0; turn < LockTable::kLocalTurns; ++turn) {
    ASSERT_THAT(released, IsEmpty()) << "turn " << turn;
    table.release(holder);
    EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
    holder = next;
    next = waiter(Mode::kEX);
  }
  table.release(holder);
  EXPECT_THAT(released, ElementsAre(claim));
  EXPECT_THAT(observer.answers, IsEmpty());
  ASSERT_THAT(asks, SizeIs(1)) << "and asked for anew, behind the other node";
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
}

// Where nobody says so, somebody else may always want it: between two who hold, others have a turn.
TEST_F(LockTableContended, WithoutHintsItIsGivenUpAfterAFewTurnsInAnyCase) {
  change_traits().contention_hints = false;
  OwnerId holder = granted_owner(Mode::kEX);
  const ClaimId claim = lock().claim->id;
  OwnerId next = waiter(Mode::kEX);
  for (uint32_t turn = 1; turn < LockTable::kLocalTurns; ++turn) {
    table.release(holder);
    ASSERT_THAT(observer.take(), ElementsAre(Answer{next, kOk})) << turn;
    holder = next;
    next = waiter(Mode::kEX);
  }
  ASSERT_THAT(released, IsEmpty());
  table.release(holder);
  EXPECT_THAT(released, ElementsAre(claim));
  ASSERT_THAT(asks, SizeIs(1)) << "and asked for anew";
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
}

TEST_F(LockTableContended, WithoutHintsNobodyStandsBackBehindWhoHolds) {
  change_traits().contention_hints = false;
  const OwnerId first = granted_owner(Mode::kPR);
  for (uint32_t turn = 0; turn < 3 * LockTable::kLocalTurns; ++turn) {
    EXPECT_EQ(ask(open(), turn % 2 == 0 ? want(Mode::kPR) : trying(want(Mode::kPR))), kOk) << turn;
  }
  EXPECT_TRUE(holds(first, Mode::kPR));
  EXPECT_THAT(released, IsEmpty());
}

TEST_F(LockTableContended, ReadersThatComeDoNotKeepItForEver) {
  const OwnerId first = granted_owner(Mode::kPR);
  contend();
  for (uint32_t turn = 0; turn < LockTable::kLocalTurns; ++turn) {
    const OwnerId reader = open();
    EXPECT_EQ(ask(reader, Mode::kPR), kOk);
    table.release(reader);
  }
  EXPECT_EQ(ask(open(), trying(want(Mode::kPR))), LockErrc::kWouldBlock);
  const OwnerId late = waiter(Mode::kPR);
  table.release(first);
  EXPECT_THAT(released, SizeIs(1));
  grant();
  EXPECT_TRUE(holds(late, Mode::kPR));
}

TEST_F(LockTableContended, WhereTurnsAreStrictOnlyThoseGoFirstWhoAskedBefore) {
  change_traits().strict_turns = true;
  const OwnerId holder = granted_owner(Mode::kEX);
  const ClaimId claim = lock().claim->id;
  const OwnerId before = waiter(Mode::kEX);
  contend();
  const OwnerId after = waiter(Mode::kEX);
  table.release(holder);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{before, kOk}));
  ASSERT_THAT(released, IsEmpty());
  table.release(before);
  EXPECT_THAT(released, ElementsAre(claim));
  ASSERT_THAT(asks, SizeIs(1)) << "and asked for anew, behind the other node";
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{after, kOk}));
}

// Who of those that wait here asked before the other node is not known then.
TEST_F(LockTableContended, WhereTurnsAreStrictAClaimThatIsWantedWhenItComesIsForOne) {
  change_traits().strict_turns = true;
  const OwnerId first = waiter(Mode::kEX);
  const OwnerId second = waiter(Mode::kEX);
  contend();
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{first, kOk}));
  const ClaimId claim = lock().claim->id;
  table.release(first);
  EXPECT_THAT(released, ElementsAre(claim));
  grant();
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, kOk}));
}

TEST_F(LockTableContended, WhereTurnsAreStrictNewcomersStandBackUntilNobodyWaits) {
  change_traits().strict_turns = true;
  granted_owner(Mode::kPR);
  contend();
  EXPECT_EQ(ask(open(), trying(want(Mode::kPR))), LockErrc::kWouldBlock);
  const OwnerId late = waiter(Mode::kPR);
  EXPECT_THAT(observer.answers, IsEmpty());
  events().uncontended(lock().claim->id);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{late, kOk}));
}

TEST_F(LockTableContended, WhoHoldsItMayConvert) {
  const OwnerId holder = granted_owner(Mode::kEX);
  contend();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask(holder, Mode::kEX), kOk);
  }
  EXPECT_TRUE(holds(holder, Mode::kEX));
}

TEST_F(LockTableContended, AHolderSeesThatItIsWanted) {
  granted_owner(Mode::kEX);
  EXPECT_FALSE(lock().is_wanted());
  const uint32_t changes = lock().changes;
  contend();
  EXPECT_TRUE(lock().is_wanted());
  EXPECT_NE(lock().changes, changes);
}

TEST_F(LockTableContended, AfterAWeakeningAllAreFreeToComeAgain) {
  const OwnerId writer = granted_owner(Mode::kEX);
  contend();
  grant_at_once_with = 1;
  EXPECT_EQ(ask(writer, Mode::kCR), kOk);
  EXPECT_EQ(lock().claimed(), Mode::kCR);
  for (uint32_t i = 0; i < LockTable::kLocalTurns + 5; ++i) {
    EXPECT_EQ(ask(open(), Mode::kCR), kOk);
  }
}

}  // namespace
}  // namespace lockfs
