// SPDX-License-Identifier: MIT
// Fencing tokens: they grow over hand-overs, deaths, and the end of all mounts.
#include "backends/dlm/tokens.h"

#include <gmock/gmock.h>

#include <chrono>
#include <optional>

namespace lockfs::dlm {
namespace {

// One node, and the DLM as it is for its counters: what was asked for is answered by hand.
class TokensTest : public testing::Test {
 protected:
  struct Asked {
    LockNo no = LockNo::kNone;
    std::string resource;
    Mode mode = Mode::kNL;
    std::optional<LockValue> write;
  };
  uint64_t token(const std::string& name) {
    given_ = 0;
    tokens_.next("default", name, [this](uint64_t token) {
      given_ = token;
      ++times_;
    });
    return given_;
  }
  Asked take() {
    EXPECT_FALSE(asked_.empty());
    const Asked first = asked_.front();
    asked_.erase(asked_.begin());
    return first;
  }
  // The ring is told, and what the counter begins with is stored.
  void started(uint64_t ring) {
    ASSERT_NE(started_, LockNo::kNone) << "it did not ask for the ring";
    tokens_.started(std::exchange(started_, LockNo::kNone), ring);
    if (ring == 0) return;
    EXPECT_EQ(given_, 0U) << "not before all know";
    announced();
    EXPECT_EQ(given_, 0U) << "not before it is stored";
    const Asked store = take();
    EXPECT_EQ(store.mode, Mode::kEX);
    ASSERT_TRUE(store.write);
    tokens_.granted(store.no, Mode::kEX, *store.write);
  }
  // All have heard the floor, this mount too.
  void announced() {
    ASSERT_NE(floor_, 0U) << "it did not announce";
    tokens_.floor("default", counter_, std::exchange(floor_, 0), true);
  }
  // The counter of "a" is here.
  LockNo begin(uint64_t ring) {
    token("a");
    const Asked ask = take();
    tokens_.granted(ask.no, Mode::kEX, {});
    started(ring);
    return ask.no;
  }
  static uint64_t ring_of(uint64_t token) { return token >> 46 << 2; }

  uint64_t last_ = 0;
  uint64_t given_ = 0;
  int times_ = 0;
  LockNo started_ = LockNo::kNone;
  size_t counter_ = 0;
  uint64_t floor_ = 0;
  std::vector<Asked> asked_;
  TimePoint now_ = TimePoint(std::chrono::hours(1));
  Tokens tokens_{{[this] { return LockNo{++last_}; },
                  [this](LockNo no, const std::string&, const std::string& resource, Mode mode,
                         const std::optional<LockValue>& write) {
                    asked_.push_back({no, resource, mode, write});
                  },
                  [this](LockNo no) { started_ = no; },
                  [this](const std::string&, size_t counter, uint64_t token) {
                    counter_ = counter;
                    floor_ = token;
                  },
                  [this] { return now_; }}};
};

TEST_F(TokensTest, ANewCounterBeginsAtTheClusterAndTheClock) {
  EXPECT_EQ(token("a"), 0U);
  const Asked ask = take();
  EXPECT_EQ(ask.mode, Mode::kEX);
  EXPECT_EQ(ask.resource.front(), '\0') << "no file can have that name";
  EXPECT_TRUE(tokens_.granted(ask.no, Mode::kEX, {}));
  EXPECT_EQ(times_, 0);
  started(28);
  EXPECT_EQ(times_, 1);
  EXPECT_EQ(ring_of(given_), 28U);
  const uint64_t first = given_;
  EXPECT_EQ(token("a"), first + 1) << "while the counter is here it costs nothing";
  EXPECT_THAT(asked_, testing::IsEmpty());
}

TEST_F(TokensTest, AHandOverTakesTheLastTokenAlong) {
  token("a");
  const Asked ask = take();
  tokens_.granted(ask.no, Mode::kEX, {});
  started(28);
  const uint64_t last = token("a");
  EXPECT_TRUE(tokens_.blocking(ask.no));
  const Asked back = take();
  EXPECT_EQ(back.mode, Mode::kNL);
  ASSERT_TRUE(back.write);
  tokens_.granted(back.no, Mode::kNL, {});
  token("a");
  tokens_.granted(take().no, Mode::kEX, *back.write);
  EXPECT_EQ(given_, last + 1);
  EXPECT_EQ(started_, LockNo::kNone);
}

TEST_F(TokensTest, AValueThatADeathMadeInvalidIsPassedByTheRing) {
  token("a");
  LockValue old;
  old.bytes = {1, 0, 0, 0, 0, 7};
  old.valid = false;
  tokens_.granted(take().no, Mode::kEX, old);
  EXPECT_EQ(times_, 0);
  started(32);
  EXPECT_EQ(ring_of(given_), 32U);
}

// A mount died with the counter, and gave tokens that it did not store: fewer than the reserve.
TEST_F(TokensTest, AfterADeathTheReserveIsPassed) {
  token("a");
  LockValue old;
  const uint64_t ahead = Tokens::base(400, 0);  // Of a clock, or a cluster, before ours.
  for (size_t i = 0; i < 8; ++i) old.bytes.at(i) = static_cast<uint8_t>(ahead >> (8 * i));
  old.valid = false;
  tokens_.granted(take().no, Mode::kEX, old);
  started(8);
  EXPECT_GT(given_, ahead + Tokens::kReserve);
}

TEST_F(TokensTest, NobodyGivesMoreThanTheReserveWithoutStoring) {
  token("a");
  tokens_.granted(take().no, Mode::kEX, {});
  started(7);
  const uint64_t first = given_;
  uint64_t last = first;
  while (floor_ == 0) {
    ASSERT_LT(last - first, Tokens::kReserve);
    const uint64_t token = tokens_.take("default", "a");
    if (token == 0) break;
    ASSERT_EQ(token, last + 1);
    last = token;
  }
  announced();
  const Asked store = take();
  EXPECT_EQ(store.mode, Mode::kEX);
  tokens_.granted(store.no, Mode::kEX, *store.write);
  EXPECT_EQ(token("a"), last + 1);
}

// The clock of the one who died was ahead of ours, and the membership is the same.
TEST_F(TokensTest, ANewCounterIsAboveTheFloorThatOthersAnnounced) {
  const uint64_t ahead = Tokens::base(7, 4000000000000000);  // In 2096.
  for (size_t i = 0; i < Tokens::kCounters; ++i) tokens_.floor("default", i, ahead, false);
  token("a");
  tokens_.granted(take().no, Mode::kEX, {});
  started(7);
  EXPECT_GT(given_, ahead + Tokens::kReserve);
  EXPECT_EQ(tokens_.floors("default").size(), Tokens::kCounters);
}

TEST_F(TokensTest, CutOffThereIsNoneUntilItIsHeardAgain) {
  token("a");
  tokens_.granted(take().no, Mode::kEX, {});
  tokens_.started(std::exchange(started_, LockNo::kNone), 7);
  tokens_.cut_off("default");
  EXPECT_EQ(times_, 1);
  EXPECT_EQ(given_, 0U);
  floor_ = 0;
  EXPECT_EQ(token("a"), 0U);
  started(8);
  EXPECT_EQ(ring_of(given_), 8U);
}

TEST_F(TokensTest, WhoLeavesHandsItsCountersOver) {
  token("a");
  const Asked ask = take();
  tokens_.granted(ask.no, Mode::kEX, {});
  started(7);
  tokens_.leave_all();
  const Asked back = take();
  EXPECT_EQ(back.mode, Mode::kNL);
  EXPECT_TRUE(back.write);
}

TEST_F(TokensTest, WhoWaitsIsServedBeforeTheCounterGoes) {
  token("a");
  const Asked ask = take();
  tokens_.next("default", "a", [this](uint64_t) { ++times_; });
  EXPECT_TRUE(tokens_.blocking(ask.no)) << "it comes early";
  tokens_.granted(ask.no, Mode::kEX, {});
  started(28);
  EXPECT_EQ(times_, 2);
  EXPECT_EQ(take().mode, Mode::kNL);
}

TEST_F(TokensTest, WhoAsksWhileItGoesHasItBackAfter) {
  token("a");
  const Asked ask = take();
  tokens_.granted(ask.no, Mode::kEX, {});
  started(28);
  tokens_.blocking(ask.no);
  const Asked back = take();
  times_ = 0;
  EXPECT_EQ(token("a"), 0U);
  EXPECT_THAT(asked_, testing::IsEmpty()) << "one conversion at a time";
  tokens_.granted(back.no, Mode::kNL, {});
  const Asked again = take();
  EXPECT_EQ(again.mode, Mode::kEX);
  tokens_.granted(again.no, Mode::kEX, *back.write);
  EXPECT_EQ(times_, 1);
}

TEST_F(TokensTest, OutOfReachThereIsNone) {
  token("a");
  EXPECT_TRUE(tokens_.refused(take().no));
  EXPECT_EQ(times_, 1);
  EXPECT_EQ(given_, 0U);
  token("a");
  tokens_.granted(take().no, Mode::kEX, {});
  started(0);
  EXPECT_EQ(times_, 2);
  EXPECT_EQ(given_, 0U);
  EXPECT_EQ(token("a"), 0U) << "nor later, before corosync has told";
  EXPECT_EQ(times_, 2);
  started(36);
  EXPECT_EQ(ring_of(given_), 36U);
  token("other, on another counter");
  tokens_.leave("default");
  EXPECT_EQ(times_, 4);
  EXPECT_EQ(given_, 0U);
}

// A mount that is stopped could not give it back.
TEST_F(TokensTest, ACounterThatNobodyUsesIsHandedOverInOrder) {
  constexpr auto kUnused = std::chrono::seconds(10);
  EXPECT_EQ(tokens_.expire(kUnused), std::nullopt) << "none is here";
  const LockNo no = begin(28);
  now_ += std::chrono::seconds(6);
  const uint64_t last = token("a");
  now_ += std::chrono::seconds(6);
  EXPECT_EQ(tokens_.expire(kUnused), now_ + std::chrono::seconds(4)) << "it was used";
  EXPECT_THAT(asked_, testing::IsEmpty());
  now_ += std::chrono::seconds(4);
  EXPECT_NE(tokens_.expire(kUnused), std::nullopt) << "not before it has gone";
  const Asked back = take();
  EXPECT_EQ(back.no, no);
  EXPECT_EQ(back.mode, Mode::kNL);
  ASSERT_TRUE(back.write);
  tokens_.granted(no, Mode::kNL, {});
  EXPECT_EQ(tokens_.expire(kUnused), std::nullopt);
  EXPECT_EQ(token("a"), 0U);
  tokens_.granted(take().no, Mode::kEX, *back.write);
  EXPECT_EQ(given_, last + 1);
}

TEST_F(TokensTest, ACounterThatSomebodyWaitsForIsNotHandedOver) {
  token("a");
  const Asked ask = take();
  tokens_.granted(ask.no, Mode::kEX, {});
  now_ += std::chrono::seconds(20);
  EXPECT_EQ(tokens_.expire(std::chrono::seconds(10)), now_ + std::chrono::seconds(10));
  EXPECT_THAT(asked_, testing::IsEmpty());
  started(28);
  EXPECT_EQ(times_, 1);
}

// What was given since it was stored is in no value block: the next node must not count on from it.
TEST_F(TokensTest, ACounterInDoubtIsHandedOverAsANewOne) {
  const LockNo no = begin(28);
  uint64_t last = 0;
  for (int i = 0; i < 100; ++i) last = token("a");
  tokens_.doubt();
  tokens_.blocking(no);
  const Asked back = take();
  EXPECT_EQ(back.mode, Mode::kNL);
  ASSERT_TRUE(back.write);
  tokens_.granted(no, Mode::kNL, {});
  token("a");
  tokens_.granted(take().no, Mode::kEX, *back.write);
  started(32);
  EXPECT_GT(given_, last);
  EXPECT_EQ(ring_of(given_), 32U);
}

TEST_F(TokensTest, WhatIsNoCounterIsLeftAlone) {
  EXPECT_FALSE(tokens_.granted(LockNo{99}, Mode::kEX, {}));
  EXPECT_FALSE(tokens_.refused(LockNo{99}));
  EXPECT_FALSE(tokens_.blocking(LockNo{99}));
  tokens_.started(LockNo{99}, 1);
}

TEST(TokenBase, GrowsWithTheRingThenWithTime) {
  constexpr uint64_t kNow = 1795000000000000;  // In 2026.
  EXPECT_GT(Tokens::base(8, kNow), Tokens::base(4, kNow + 1000000ULL * 3600 * 24 * 365));
  EXPECT_GT(Tokens::base(4, kNow + 8), Tokens::base(4, kNow));
  EXPECT_GT(Tokens::base(4, 0), Tokens::base(0, kNow));
}

}  // namespace
}  // namespace lockfs::dlm
