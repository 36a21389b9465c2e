// SPDX-License-Identifier: MIT
// `SLOT size=N`: a counting semaphore.
#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using Slots = MountTest;

TEST_F(Slots, AsManyHoldAsThereAreSlots) {
  const Fd a = hold("s", "SLOT size=3");
  const Fd b = hold("s", "SLOT size=3");
  const Fd c = hold("s", "SLOT size=3");
  const Fd d = open("s");
  EXPECT_EQ(write_command(d.get(), "SLOT size=3 try"), EAGAIN);
  EXPECT_EQ(value("s", "holders_total"), "3");
  EXPECT_EQ(value("s", "mode"), "SLOT");
  EXPECT_EQ(mode_of(a.get()), "SLOT");
  ASSERT_EQ(write_command(b.get(), "UN"), 0);
  EXPECT_EQ(write_command(d.get(), "SLOT size=3 try"), 0);
}

TEST_F(Slots, AnotherSizeWhileInUseIsEinval) {
  Fd a = hold("s", "SLOT size=3");
  const Fd b = open("s");
  EXPECT_EQ(write_command(b.get(), "SLOT size=2"), EINVAL);
  EXPECT_THAT(value_of(b.get(), "this.error"), ::testing::HasSubstr("size 3"));
  a.reset();
  EXPECT_EQ(write_command(b.get(), "SLOT size=2 try"), 0) << "free again, any size goes";
}

TEST_F(Slots, AWaiterGetsTheSlotThatFallsFree) {
  const Fd a = hold("s", "SLOT size=2");
  const Fd b = hold("s", "SLOT size=2");
  const Fd c = open("s");
  const Fd d = open("s");
  auto third = in_thread([&] { return write_command(c.get(), "SLOT size=2"); });
  ASSERT_TRUE(eventually_waiting(1));
  auto fourth = in_thread([&] { return write_command(d.get(), "SLOT size=2"); });
  ASSERT_TRUE(eventually_waiting(2));
  ASSERT_EQ(write_command(a.get(), "UN"), 0);
  ASSERT_TRUE(ended(third));
  EXPECT_EQ(third.get(), 0);
  EXPECT_FALSE(ended(fourth, 0)) << "one slot, one waiter";
  ASSERT_EQ(write_command(b.get(), "UN"), 0);
  ASSERT_TRUE(ended(fourth));
  EXPECT_EQ(fourth.get(), 0);
}

TEST_F(Slots, SlotsAndExclusiveModesExcludeEachOther) {
  const Fd a = hold("s", "SLOT size=2");
  const Fd b = open("s");
  for (const std::string mode : {"PR", "PW", "EX"}) {
    EXPECT_EQ(write_command(b.get(), mode + " try"), EAGAIN) << mode;
  }
  ASSERT_EQ(write_command(a.get(), "EX"), 0) << "the only holder converts";
  EXPECT_EQ(write_command(b.get(), "SLOT size=2 try"), EAGAIN);
}

TEST_F(Slots, ASlotFallsWithItsDescriptor) {
  Fd a = hold("s", "SLOT size=1");
  const Fd b = open("s");
  EXPECT_EQ(write_command(b.get(), "SLOT size=1 try"), EAGAIN);
  a.reset();
  EXPECT_EQ(write_command(b.get(), "SLOT size=1 try"), 0);
}

TEST_F(Slots, TimeoutAndNonblockingCountForSlots) {
  Actor a;
  ASSERT_EQ(a.open(mount_.lock("s")), 0);
  ASSERT_EQ(a.write(0, "SLOT size=1"), 0);
  const Fd b = open("s", O_RDWR | O_NONBLOCK);
  EXPECT_EQ(write_command(b.get(), "SLOT size=1"), EAGAIN);
  const Fd c = open("s");
  EXPECT_EQ(write_command(c.get(), "SLOT size=1 timeout=50ms"), ETIMEDOUT);
}

}  // namespace
}  // namespace lockfs::test
