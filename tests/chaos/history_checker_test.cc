// SPDX-License-Identifier: MIT
// The checker of histories itself: that it finds each kind of mistake, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/chaos/history.h"

namespace lockfs::test {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

Grant grant(int64_t from, int64_t to, Take take, uint64_t token = 0, uint8_t lock = 0) {
  Grant made;
  made.from = from;
  made.to = to;
  made.take = take;
  made.token = token;
  made.lock = lock;
  return made;
}

TEST(HistoryChecker, FindsAnOverlapOfWhatExcludesEachOther) {
  EXPECT_THAT(violations({grant(1, 10, Take::kEX), grant(5, 6, Take::kCR)}), SizeIs(1));
  EXPECT_THAT(violations({grant(5, 6, Take::kPR), grant(1, 10, Take::kCW)}), SizeIs(1));
  EXPECT_THAT(violations({grant(1, 0, Take::kPW), grant(50, 60, Take::kPW)}), SizeIs(1))
      << "held to the end";
}

TEST(HistoryChecker, FindsALongHoldBehindShortOnes) {
  EXPECT_THAT(violations({grant(1, 100, Take::kCR), grant(2, 3, Take::kCR), grant(4, 5, Take::kCR),
                          grant(50, 51, Take::kEX)}),
              SizeIs(1));
}

TEST(HistoryChecker, AcceptsWhatGoesTogetherOrFollows) {
  EXPECT_THAT(violations({grant(1, 10, Take::kPR), grant(5, 6, Take::kPR)}), IsEmpty());
  EXPECT_THAT(violations({grant(1, 10, Take::kEX), grant(10, 20, Take::kEX)}), IsEmpty());
  EXPECT_THAT(violations({grant(1, 10, Take::kEX), grant(5, 20, Take::kNL)}), IsEmpty());
  EXPECT_THAT(violations({grant(1, 10, Take::kEX, 0, 0), grant(5, 20, Take::kEX, 0, 1)}), IsEmpty())
      << "another lock";
}

TEST(HistoryChecker, CountsSlots) {
  EXPECT_THAT(violations({grant(1, 10, Take::kSlot), grant(2, 11, Take::kSlot)}), IsEmpty());
  EXPECT_THAT(
      violations({grant(1, 10, Take::kSlot), grant(2, 11, Take::kSlot), grant(3, 4, Take::kSlot)}),
      SizeIs(1));
  EXPECT_THAT(violations({grant(1, 10, Take::kSlot), grant(2, 11, Take::kCR)}), SizeIs(1));
}

TEST(HistoryChecker, FindsATokenThatDoesNotRise) {
  EXPECT_THAT(violations({grant(1, 2, Take::kEX, 5), grant(3, 4, Take::kPW, 5)}), SizeIs(1));
  EXPECT_THAT(violations({grant(1, 2, Take::kEX, 5), grant(3, 4, Take::kEX, 4)}), SizeIs(1));
  EXPECT_THAT(violations({grant(1, 2, Take::kEX, 5), grant(3, 4, Take::kPR, 5)}), IsEmpty());
  EXPECT_THAT(violations({grant(1, 2, Take::kEX, 5), grant(3, 4, Take::kEX, 9)}), IsEmpty());
  Grant converted = grant(3, 4, Take::kPW, 5);
  converted.goes_on = true;
  EXPECT_THAT(violations({grant(1, 2, Take::kEX, 5), converted}), IsEmpty());
}

TEST(HistoryChecker, KnowsTheDlmsTable) {
  // Rows and columns NL CR CW PR PW EX, as in the design.
  const std::vector<std::string> table = {"111111", "111110", "111000",
                                          "110100", "110000", "100000"};
  for (size_t a = 0; a < 6; ++a) {
    for (size_t b = 0; b < 6; ++b) {
      EXPECT_EQ(go_together(static_cast<Take>(a), static_cast<Take>(b)), table[a][b] == '1')
          << name_of(static_cast<Take>(a)) << " with " << name_of(static_cast<Take>(b));
    }
  }
}

}  // namespace
}  // namespace lockfs::test
