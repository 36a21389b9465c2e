// SPDX-License-Identifier: MIT
// The six modes on the mount: the whole compatibility table, and conversions in both directions.
#include <sys/file.h>

#include <array>
#include <cerrno>

#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

constexpr std::array<const char*, 6> kModes = {"NL", "CR", "CW", "PR", "PW", "EX"};

// A row is what is held, a column what is wanted; from the manual of the DLM, not from core.
constexpr std::array<std::array<bool, 6>, 6> kCompatible = {{
    {true, true, true, true, true, true},       // NL
    {true, true, true, true, true, false},      // CR
    {true, true, true, false, false, false},    // CW
    {true, true, false, true, false, false},    // PR
    {true, true, false, false, false, false},   // PW
    {true, false, false, false, false, false},  // EX
}};

class Compatibility : public MountTest {
 protected:
  Fd a_ = open("a");
  Fd b_ = open("a");
};

TEST_F(Compatibility, All36CellsOfTheTableHold) {
  for (size_t held = 0; held < 6; ++held) {
    for (size_t wanted = 0; wanted < 6; ++wanted) {
      ASSERT_EQ(write_command(a_.get(), kModes.at(held)), 0);
      const int result = write_command(b_.get(), std::string(kModes.at(wanted)) + " try");
      EXPECT_EQ(result, kCompatible.at(held).at(wanted) ? 0 : EAGAIN)
          << kModes.at(wanted) << " while " << kModes.at(held) << " is held";
      EXPECT_EQ(mode_of(b_.get()), result == 0 ? kModes.at(wanted) : "none");
      EXPECT_EQ(mode_of(a_.get()), kModes.at(held));
      ASSERT_EQ(write_command(a_.get(), "UN"), 0);
      ASSERT_EQ(write_command(b_.get(), "UN"), 0);
    }
  }
}

TEST_F(Compatibility, ASoleHolderConvertsFromEachModeToEachMode) {
  for (const std::string from : kModes) {
    for (const std::string to : kModes) {
      ASSERT_EQ(write_command(a_.get(), from), 0);
      EXPECT_EQ(write_command(a_.get(), to + " try"), 0) << from << " to " << to;
      EXPECT_EQ(mode_of(a_.get()), to) << "from " << from;
      EXPECT_EQ(value("a", "mode"), to == "NL" ? "" : to) << "invisible in NL";
      ASSERT_EQ(write_command(a_.get(), "UN"), 0);
    }
  }
}

TEST_F(Compatibility, AConversionSucceedsExactlyIfItsModeGoesWithWhatOthersHold) {
  for (size_t other = 0; other < 6; ++other) {
    for (size_t from = 0; from < 6; ++from) {
      if (!kCompatible.at(other).at(from)) continue;
      for (size_t to = 0; to < 6; ++to) {
        ASSERT_EQ(write_command(b_.get(), kModes.at(other)), 0);
        ASSERT_EQ(write_command(a_.get(), kModes.at(from)), 0);
        const int result = write_command(a_.get(), std::string(kModes.at(to)) + " try");
        EXPECT_EQ(result, kCompatible.at(other).at(to) ? 0 : EAGAIN)
            << kModes.at(from) << " to " << kModes.at(to) << " beside " << kModes.at(other);
        EXPECT_EQ(mode_of(a_.get()), kModes.at(result == 0 ? to : from)) << "the old mode stays";
        ASSERT_EQ(write_command(a_.get(), "UN"), 0);
        ASSERT_EQ(write_command(b_.get(), "UN"), 0);
      }
    }
  }
}

TEST_F(Compatibility, AConversionUpWaitsAndKeepsTheOldModeMeanwhile) {
  ASSERT_EQ(write_command(a_.get(), "PR"), 0);
  ASSERT_EQ(write_command(b_.get(), "PR"), 0);
  auto up = in_thread([&] { return write_command(a_.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(mode_of(a_.get()), "PR");
  EXPECT_EQ(value("a", "holders_total"), "2");
  EXPECT_EQ(value("a", "waiters.0.mode"), "EX");
  ASSERT_EQ(write_command(b_.get(), "UN"), 0);
  ASSERT_TRUE(ended(up));
  EXPECT_EQ(up.get(), 0);
  EXPECT_EQ(mode_of(a_.get()), "EX");
}

TEST_F(Compatibility, AConversionDownLetsWaitersIn) {
  ASSERT_EQ(write_command(a_.get(), "EX"), 0);
  auto reader = in_thread([&] { return write_command(b_.get(), "PR"); });
  ASSERT_TRUE(eventually_waiting(1));
  ASSERT_EQ(write_command(a_.get(), "PW"), 0);
  EXPECT_EQ(waiters(), 1U) << "PR does not go with PW";
  ASSERT_EQ(write_command(a_.get(), "PR"), 0);
  ASSERT_TRUE(ended(reader));
  EXPECT_EQ(reader.get(), 0);
  EXPECT_EQ(value("a", "holders_total"), "2");
}

TEST_F(Compatibility, AConversionGoesBeforeANewRequest) {
  const Fd c = open("a");
  ASSERT_EQ(write_command(a_.get(), "PR"), 0);
  ASSERT_EQ(write_command(b_.get(), "PR"), 0);
  auto newcomer = in_thread([&] { return write_command(c.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  auto conversion = in_thread([&] { return write_command(a_.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(2));
  ASSERT_EQ(write_command(b_.get(), "UN"), 0);
  ASSERT_TRUE(ended(conversion));
  EXPECT_EQ(conversion.get(), 0);
  EXPECT_EQ(mode_of(a_.get()), "EX");
  EXPECT_EQ(waiters(), 1U);
  ASSERT_EQ(write_command(a_.get(), "UN"), 0);
  ASSERT_TRUE(ended(newcomer));
  EXPECT_EQ(newcomer.get(), 0);
}

TEST_F(Compatibility, OfTwoConversionsThatBlockEachOtherTheLaterGetsEdeadlk) {
  ASSERT_EQ(write_command(a_.get(), "PR"), 0);
  ASSERT_EQ(write_command(b_.get(), "PR"), 0);
  auto first = in_thread([&] { return write_command(a_.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(write_command(b_.get(), "EX"), EDEADLK);
  EXPECT_EQ(mode_of(b_.get()), "PR") << "what it held it holds";
  EXPECT_THAT(value_of(b_.get(), "this.error"), ::testing::HasSubstr("deadlock"));
  EXPECT_EQ(value("a", "stats.deadlocks"), "1");
  EXPECT_EQ(waiters(), 1U) << "the earlier one still waits";
  ASSERT_EQ(write_command(b_.get(), "UN"), 0);
  ASSERT_TRUE(ended(first));
  EXPECT_EQ(first.get(), 0);
}

TEST_F(Compatibility, AConversionToNullBlocksNobody) {
  ASSERT_EQ(write_command(a_.get(), "EX"), 0);
  auto waiter = in_thread([&] { return flock_of(b_.get(), LOCK_EX); });
  ASSERT_TRUE(eventually_waiting(1));
  ASSERT_EQ(write_command(a_.get(), "NL"), 0);
  ASSERT_TRUE(ended(waiter));
  EXPECT_EQ(waiter.get(), 0);
  EXPECT_EQ(mode_of(a_.get()), "NL");
}

TEST_F(Compatibility, AReleaseWhileConvertingEndsNothingButTheHold) {
  // The waiting conversion is a thread's, the release comes through a second way: LOCK_UN.
  ASSERT_EQ(write_command(a_.get(), "PR"), 0);
  ASSERT_EQ(write_command(b_.get(), "PR"), 0);
  auto up = in_thread([&] { return write_command(a_.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  ASSERT_EQ(flock_of(a_.get(), LOCK_UN), 0);
  EXPECT_EQ(value("a", "holders_total"), "1");
  ASSERT_EQ(write_command(b_.get(), "UN"), 0);
  ASSERT_TRUE(ended(up));
  EXPECT_EQ(up.get(), 0);
  EXPECT_EQ(mode_of(a_.get()), "EX");
}

}  // namespace
}  // namespace lockfs::test
