// SPDX-License-Identifier: MIT
// The lock value block where nodes share it: it comes with grants, goes down when it is written,
// and lives as long as anybody holds the lock, be it in NL.
#include "tests/core/async_backend.h"
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;

class ValueBackend : public AsyncBackend {
 public:
  ValueBackend() { change_traits().value_block = true; }
  void set_value(ClaimId claim, const LockValue& value) override {
    written.emplace_back(claim, value);
  }
  std::vector<std::pair<ClaimId, LockValue>> written;
};

class LockTableValue : protected ValueBackend, public TableWorldOn {
 protected:
  LockTableValue() : TableWorldOn(static_cast<ValueBackend&>(*this)) {}
  void TearDown() override { EXPECT_EQ(breaches, 0) << "the table broke the backend's contract"; }
  static LockValue value_of(uint8_t byte, bool valid = true) {
    LockValue value;
    value.bytes.fill(byte);
    value.valid = valid;
    return value;
  }
};

TEST_F(LockTableValue, ComesWithTheGrant) {
  const OwnerId owner = waiter(Mode::kPR);
  events().value(oldest().claim, value_of(7));
  grant();
  EXPECT_TRUE(holds(owner, Mode::kPR));
  ASSERT_NE(lock().lvb, nullptr);
  EXPECT_THAT(*lock().lvb, Each(7));
  EXPECT_FALSE(lock().lvb_lost);
}

TEST_F(LockTableValue, IsInvalidUntilItIsWritten) {
  waiter(Mode::kEX);
  const ClaimId claim = oldest().claim;
  events().value(claim, value_of(7, false));
  grant();
  EXPECT_TRUE(lock().lvb_lost);
  table.write_lvb(lock(), "new");
  EXPECT_FALSE(lock().lvb_lost);
  ASSERT_THAT(written, SizeIs(1));
  EXPECT_EQ(written[0].first, claim);
  EXPECT_EQ(written[0].second.bytes[0], 'n');
  EXPECT_TRUE(written[0].second.valid);
}

TEST_F(LockTableValue, AHolderOfNullWaitsForNothingAndClaimsIt) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kNL), kOk);
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kNL);
  const ClaimId claim = oldest().claim;
  grant();
  EXPECT_THAT(released, IsEmpty());
  table.close(owner);
  EXPECT_THAT(released, ElementsAre(claim));
}

TEST_F(LockTableValue, IsKeptInNullAsLongAsAnybodyHoldsNull) {
  const OwnerId owner = waiter(Mode::kEX);
  const ClaimId claim = oldest().claim;
  grant();
  EXPECT_EQ(ask(owner, Mode::kNL), kOk);
  EXPECT_THAT(released, IsEmpty());
  ASSERT_THAT(asks, SizeIs(1));
  EXPECT_EQ(oldest().mode, Mode::kNL);
  grant();
  table.release(owner);
  EXPECT_THAT(released, ElementsAre(claim));
}

TEST_F(LockTableValue, WhoIsRefusedStillHoldsNull) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kNL), kOk);
  const ClaimId claim = oldest().claim;
  grant();
  EXPECT_EQ(attempt(owner, Mode::kEX), std::nullopt);
  EXPECT_EQ(oldest().claim, claim);
  fail(LockErrc::kWouldBlock);
  EXPECT_TRUE(holds(owner, Mode::kNL));
  EXPECT_THAT(released, IsEmpty()) << "the claim keeps the value";
  table.close(owner);
  EXPECT_THAT(released, ElementsAre(claim));
}

TEST_F(LockTableValue, ARefusedNullIsForgotten) {
  refuse_at_once = LockErrc::kUnreachable;
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kNL), kOk) << "it holds nothing up";
  EXPECT_EQ(lock().claim, nullptr);
}

}  // namespace
}  // namespace lockfs
