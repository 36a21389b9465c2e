// SPDX-License-Identifier: MIT
#include "core/mode.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/core/table_world.h"

namespace lockfs {
namespace {

constexpr auto NL = Mode::kNL;
constexpr auto CR = Mode::kCR;
constexpr auto CW = Mode::kCW;
constexpr auto PR = Mode::kPR;
constexpr auto PW = Mode::kPW;
constexpr auto EX = Mode::kEX;

struct Pair {
  Mode a, b;
  bool yes;
};
// The table of the VMS lock manager, row by row as its manual prints it.
constexpr Pair kManual[] = {
    {NL, NL, true},  {NL, CR, true},  {NL, CW, true},  {NL, PR, true},  {NL, PW, true},
    {NL, EX, true},  {CR, NL, true},  {CR, CR, true},  {CR, CW, true},  {CR, PR, true},
    {CR, PW, true},  {CR, EX, false}, {CW, NL, true},  {CW, CR, true},  {CW, CW, true},
    {CW, PR, false}, {CW, PW, false}, {CW, EX, false}, {PR, NL, true},  {PR, CR, true},
    {PR, CW, false}, {PR, PR, true},  {PR, PW, false}, {PR, EX, false}, {PW, NL, true},
    {PW, CR, true},  {PW, CW, false}, {PW, PR, false}, {PW, PW, false}, {PW, EX, false},
    {EX, NL, true},  {EX, CR, false}, {EX, CW, false}, {EX, PR, false}, {EX, PW, false},
    {EX, EX, false},
};

TEST(Mode, CompatibleIsTheManualsTable) {
  ASSERT_EQ(std::size(kManual), kModeCount * kModeCount);
  for (const Pair& pair : kManual) {
    EXPECT_EQ(compatible(pair.a, pair.b), pair.yes) << pair.a << " with " << pair.b;
  }
}

TEST(Mode, JoinIsTheWeakestThatExcludesAllThatEitherExcludes) {
  const auto excludes = [](Mode a, Mode other) { return !compatible(a, other); };
  for (const Mode a : kAllModes) {
    for (const Mode b : kAllModes) {
      const Mode joined = join(a, b);
      for (const Mode other : kAllModes) {
        const bool either = excludes(a, other) || excludes(b, other);
        EXPECT_TRUE(!either || excludes(joined, other)) << a << " with " << b;
      }
      for (const Mode weaker : kAllModes) {
        if (weaker >= joined) continue;
        bool enough = true;
        for (const Mode other : kAllModes) {
          if ((excludes(a, other) || excludes(b, other)) && !excludes(weaker, other))
            enough = false;
        }
        EXPECT_FALSE(enough && weaker != a && weaker != b)
            << weaker << " would do for " << a << " and " << b << ", join says " << joined;
      }
    }
  }
}

TEST(Mode, JoinOfEveryPairWrittenOut) {
  constexpr Mode expected[6][6] = {
      {NL, CR, CW, PR, PW, EX}, {CR, CR, CW, PR, PW, EX}, {CW, CW, CW, PW, PW, EX},
      {PR, PR, PW, PR, PW, EX}, {PW, PW, PW, PW, PW, EX}, {EX, EX, EX, EX, EX, EX},
  };
  for (const Mode a : kAllModes) {
    for (const Mode b : kAllModes) {
      EXPECT_EQ(join(a, b), expected[static_cast<size_t>(a)][static_cast<size_t>(b)])
          << a << " with " << b;
    }
  }
}

TEST(Mode, ACwHolderIsNotCoveredByPrNorTheReverse) {
  EXPECT_FALSE(covers(PR, CW));
  EXPECT_FALSE(covers(CW, PR));
  EXPECT_TRUE(covers(PW, PR));
  EXPECT_TRUE(covers(PW, CW));
  for (const Mode mode : kAllModes) {
    EXPECT_TRUE(covers(mode, mode));
    EXPECT_TRUE(covers(EX, mode));
    EXPECT_TRUE(covers(mode, NL));
  }
}

TEST(Mode, OnlyPwAndExAreExclusive) {
  for (const Mode mode : kAllModes) EXPECT_EQ(is_exclusive(mode), mode == PW || mode == EX) << mode;
}

TEST(Mode, NamesAreReadInAnyCaseAndByTheirWords) {
  for (const Mode mode : kAllModes) {
    const std::string name(mode_name(mode));
    EXPECT_EQ(parse_mode(name), mode);
    EXPECT_EQ(parse_mode(std::string{static_cast<char>(name[0] | 0x20), name[1]}), mode);
  }
  EXPECT_EQ(parse_mode("shared"), PR);
  EXPECT_EQ(parse_mode("ExClUsIvE"), EX);
}

TEST(Mode, OtherWordsAreNoModes) {
  for (const char* word : {"", "N", "NLL", "XX", "share", "exclusively", "E X", " EX", "slot"}) {
    EXPECT_EQ(parse_mode(word), std::nullopt) << word;
  }
}

TEST(Mode, SlotsGoWithSlotsAndNullOnly) {
  const Share slot = slot_of(3);
  EXPECT_TRUE(slot.is_slot());
  EXPECT_TRUE(slot.above_null());
  EXPECT_TRUE(compatible(slot, slot));
  for (const Mode mode : kAllModes) {
    EXPECT_EQ(compatible(slot, Share{mode, 0}), mode == NL) << mode;
    EXPECT_EQ(compatible(Share{mode, 0}, slot), mode == NL) << mode;
  }
}

}  // namespace
}  // namespace lockfs
