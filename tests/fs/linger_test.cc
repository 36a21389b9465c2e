// SPDX-License-Identifier: MIT
// `linger` and `resume`: a lock that outlives its descriptor for a while.
#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

class Linger : public MountTest {
 protected:
  /// Takes the lock, closes it, returns its key.
  std::string leave(const std::string& command) const {
    const Fd fd = hold("a", command);
    const std::string key = value_of(fd.get(), "this.key");
    EXPECT_EQ(key.size(), 32U);
    return key;
  }
};

TEST_F(Linger, ALingeringLockIsHeldAfterItsClose) {
  leave("EX linger=1h note=\"left\"");
  ASSERT_TRUE(visible("a"));
  EXPECT_EQ(value("a", "holders.0.lingering"), "true");
  EXPECT_EQ(value("a", "holders.0.note"), "left");
  EXPECT_NE(value("a", "holders.0.expires"), "");
  const Fd other = open("a");
  EXPECT_EQ(write_command(other.get(), "CR try"), EAGAIN);
  EXPECT_EQ(open_error("a", O_RDWR | O_CREAT | O_EXCL), EEXIST);
}

TEST_F(Linger, ALingeringLockEndsByItself) {
  leave("EX linger=100ms");
  const Fd other = open("a");
  EXPECT_EQ(write_command(other.get(), "EX timeout=10s"), 0);
}

TEST_F(Linger, ResumeTakesItUpAgainWithItsToken) {
  Fd fd = hold("a", "EX linger=1h note=\"mine\"");
  const std::string key = value_of(fd.get(), "this.key");
  const std::string token = value_of(fd.get(), "this.token");
  fd.reset();
  const Fd again = open("a");
  ASSERT_EQ(write_command(again.get(), "resume " + key), 0);
  EXPECT_EQ(mode_of(again.get()), "EX");
  EXPECT_EQ(value_of(again.get(), "this.token"), token);
  EXPECT_EQ(value("a", "holders.0.note"), "mine");
  EXPECT_EQ(value("a", "holders.0.lingering"), "");
  EXPECT_EQ(value("a", "holders_total"), "1");
  ASSERT_EQ(write_command(again.get(), "UN"), 0);
  EXPECT_FALSE(visible("a"));
}

TEST_F(Linger, AResumedLockLingersAgain) {
  const std::string key = leave("PR linger=1h");
  {
    const Fd again = open("a");
    ASSERT_EQ(write_command(again.get(), "resume " + key), 0);
  }
  EXPECT_TRUE(visible("a"));
  EXPECT_EQ(value("a", "holders.0.lingering"), "true");
}

TEST_F(Linger, AKeyIsGoodOnceAndForItsLockOnly) {
  const std::string key = leave("EX linger=1h");
  const Fd elsewhere = open("b");
  EXPECT_EQ(write_command(elsewhere.get(), "resume " + key), ENOENT);
  const Fd wrong = open("a");
  EXPECT_EQ(write_command(wrong.get(), "resume " + std::string(32, '0')), ENOENT);
  const Fd again = open("a");
  ASSERT_EQ(write_command(again.get(), "resume " + key), 0);
  EXPECT_NE(write_command(wrong.get(), "resume " + key), 0);
}

TEST_F(Linger, AnOpenLockCannotBeResumed) {
  const Fd fd = hold("a", "EX linger=1h");
  const std::string key = value_of(fd.get(), "this.key");
  const Fd other = open("a");
  EXPECT_EQ(write_command(other.get(), "resume " + key), EBUSY);
  EXPECT_EQ(mode_of(fd.get()), "EX");
}

TEST_F(Linger, AReleasedLockDoesNotLinger) {
  {
    const Fd fd = hold("a", "EX linger=1h");
    ASSERT_EQ(write_command(fd.get(), "UN"), 0);
    EXPECT_FALSE(visible("a"));
  }
  EXPECT_FALSE(visible("a"));
}

TEST_F(Linger, AnotherUserCannotResume) {
  Actor stranger;
  ASSERT_EQ(stranger.become(1000), 0);
  const std::string key = leave("EX linger=1h");
  ASSERT_EQ(stranger.open(mount_.lock("a")), 0);
  EXPECT_EQ(stranger.write(0, "resume " + key), EPERM);
  EXPECT_TRUE(visible("a"));
}

TEST_F(Linger, AStrangerDoesNotSeeTheKey) {
  const std::string key = leave("EX linger=1h");
  EXPECT_THAT(slurp(mount_.lock("a")), ::testing::Not(::testing::HasSubstr(key)));
  EXPECT_THAT(slurp(mount_.path() + "/.lockfs/locks.json"),
              ::testing::Not(::testing::HasSubstr(key)));
}

TEST_F(Linger, AKilledHoldersLockLingersForItsSuccessor) {
  std::string key;
  {
    Actor holder;
    ASSERT_EQ(holder.open(mount_.lock("a")), 0);
    ASSERT_EQ(holder.write(0, "EX linger=1h"), 0);
  }
  EXPECT_TRUE(eventually([&] { return value("a", "holders.0.lingering") == "true"; }));
  EXPECT_EQ(value("a", "holders.0.exited"), "true");
}

TEST_F(Linger, ALingeringLockCanBeBroken) {
  leave("EX linger=1h");
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_FALSE(visible("a"));
}

}  // namespace
}  // namespace lockfs::test
