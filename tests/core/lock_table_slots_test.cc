// SPDX-License-Identifier: MIT
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
constexpr auto kOk = LockErrc::kOk;

class LockTableSlots : public TableWorld {
 protected:
  OwnerId slot(uint32_t size) {
    const OwnerId owner = open();
    EXPECT_EQ(ask(owner, want_slot(size)), kOk);
    return owner;
  }
};

TEST_F(LockTableSlots, AreGivenOutToTheSizeAndNoFurther) {
  for (const uint32_t size : {1U, 2U, 7U}) {
    std::vector<OwnerId> owners;
    for (uint32_t i = 0; i < size; ++i) owners.push_back(slot(size));
    const OwnerId late = open();
    EXPECT_EQ(ask(late, trying(want_slot(size))), LockErrc::kWouldBlock);
    EXPECT_EQ(ask(late, want_slot(size)), std::nullopt);
    EXPECT_EQ(lock().slots_held, size);
    table.close(owners.front());
    EXPECT_THAT(observer.take(), ElementsAre(Answer{late, kOk}));
    EXPECT_EQ(lock().slots_held, size);
    for (const OwnerId owner : owners) table.close(owner);
    table.close(late);
    EXPECT_EQ(lock().slots_held, 0U);
  }
}

TEST_F(LockTableSlots, AnotherSizeIsInvalidWhileTheyAreInUse) {
  const OwnerId owner = slot(3);
  EXPECT_EQ(ask(open(), want_slot(4)), LockErrc::kInvalid);
  EXPECT_EQ(ask(open(), trying(want_slot(2))), LockErrc::kInvalid);
  table.release(owner);
  slot(4);
}

TEST_F(LockTableSlots, AnotherSizeIsInvalidWhileOneWaits) {
  const OwnerId owner = holder(Mode::kEX);
  const OwnerId first = open();
  EXPECT_EQ(ask(first, want_slot(3)), std::nullopt);
  EXPECT_EQ(ask(open(), want_slot(4)), LockErrc::kInvalid);
  table.cancel(first);
  EXPECT_EQ(ask(open(), want_slot(4)), std::nullopt);
  table.release(owner);
  EXPECT_EQ(lock().slots_held, 1U);
}

TEST_F(LockTableSlots, GoWithNoOtherModeThanNull) {
  const OwnerId owner = slot(3);
  for (const Mode mode : kAllModes) {
    EXPECT_EQ(attempt(open(), mode), mode == Mode::kNL ? kOk : LockErrc::kWouldBlock) << mode;
  }
  table.close(owner);
  for (const Mode mode : kAllModes) {
    const OwnerId other = holder(mode);
    const OwnerId late = open();
    EXPECT_EQ(ask(late, trying(want_slot(3))), mode == Mode::kNL ? kOk : LockErrc::kWouldBlock);
    table.close(other);
    table.close(late);
  }
}

TEST_F(LockTableSlots, AreFifoWithModes) {
  const OwnerId a = slot(2);
  const OwnerId writer = waiter(Mode::kEX);
  const OwnerId late = open();
  EXPECT_EQ(ask(late, want_slot(2)), std::nullopt) << "one is free, but a writer waits";
  table.release(a);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{writer, kOk}));
  table.release(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{late, kOk}));
}

TEST_F(LockTableSlots, TheirWaitersGoInOrderAndAsManyAsThereAreSlots) {
  const OwnerId writer = holder(Mode::kEX);
  std::vector<OwnerId> queue;
  for (int i = 0; i < 5; ++i) {
    queue.push_back(open());
    EXPECT_EQ(ask(queue.back(), want_slot(2)), std::nullopt);
  }
  table.release(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{queue[0], kOk}, Answer{queue[1], kOk}));
  table.close(queue[0]);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{queue[2], kOk}));
}

TEST_F(LockTableSlots, AnOwnerHoldsOneHoweverOftenItAsks) {
  const OwnerId owner = slot(2);
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  EXPECT_EQ(lock().slots_held, 1U);
  slot(2);
  EXPECT_EQ(ask(owner, trying(want_slot(2))), kOk) << "full, but one of them is its own";
}

TEST_F(LockTableSlots, ConvertToAndFromModes) {
  const OwnerId owner = holder(Mode::kEX);
  EXPECT_EQ(ask(owner, want_slot(2)), kOk);
  const OwnerId other = slot(2);
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  EXPECT_EQ(ask(other, Mode::kPR), LockErrc::kDeadlock);
  table.release(other);
  EXPECT_TRUE(holds(owner, Mode::kEX));
  EXPECT_EQ(lock().slots_held, 0U);
}

TEST_F(LockTableSlots, AreNoExclusiveGrantAndTakeNoToken) {
  const OwnerId a = slot(2);
  const OwnerId b = slot(2);
  EXPECT_EQ(table.find(a)->token, table.find(b)->token);
}

TEST_F(LockTableSlots, AllGoWhenTheLockIsBroken) {
  slot(3);
  slot(3);
  EXPECT_EQ(table.break_lock(lock(), "x"), 2U);
  EXPECT_EQ(lock().slots_held, 0U);
  slot(5);
}

}  // namespace
}  // namespace lockfs
