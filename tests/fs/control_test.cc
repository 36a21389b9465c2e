// SPDX-License-Identifier: MIT
// `.ctl`: each of its commands, who may give it, and what it answers.
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;

using Control = MountTest;
using Answer = std::pair<int, std::string>;

TEST_F(Control, AllocateHandsOutTheLowestFreeNumberAndPinsIt) {
  EXPECT_EQ(control("allocate"), Answer(0, "0\n"));
  EXPECT_EQ(control("allocate\n"), Answer(0, "1\n"));
  EXPECT_EQ(control("allocate"), Answer(0, "2\n"));
  EXPECT_TRUE(visible("1"));
  EXPECT_EQ(value("1", "mode"), "free");
  EXPECT_EQ(control("free 1").first, 0);
  EXPECT_FALSE(visible("1"));
  EXPECT_EQ(control("allocate"), Answer(0, "1\n"));
  EXPECT_EQ(control("allocate"), Answer(0, "3\n"));
}

TEST_F(Control, AllocateOfACertainNumber) {
  EXPECT_EQ(control("allocate 7"), Answer(0, "7\n"));
  EXPECT_THAT(control("allocate 7"), Pair(EEXIST, HasSubstr("taken")));
  EXPECT_EQ(control("allocate"), Answer(0, "0\n"));
  EXPECT_EQ(control("allocate x").first, EINVAL);
  EXPECT_EQ(control("allocate -1").first, EINVAL);
  EXPECT_EQ(control("allocate 2048").first, EINVAL) << "beyond the capacity";
}

TEST_F(Control, AllocateSaysEnospcWhenAllAreTaken) {
  EXPECT_EQ(control("capacity 3"), Answer(0, "3\n"));
  EXPECT_EQ(control("capacity"), Answer(0, "3\n"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(control("allocate").first, 0);
  EXPECT_THAT(control("allocate"), Pair(ENOSPC, HasSubstr("3")));
  EXPECT_EQ(control("free 0").first, 0);
  EXPECT_EQ(control("allocate"), Answer(0, "0\n"));
  EXPECT_EQ(control("capacity 4").first, 0);
  EXPECT_EQ(control("allocate"), Answer(0, "3\n"));
}

TEST_F(Control, AHeldNumberIsNotHandedOut) {
  Fd holder = hold("0", "EX");
  EXPECT_EQ(control("allocate"), Answer(0, "1\n"));
  holder.reset();
  EXPECT_EQ(control("allocate"), Answer(0, "0\n"));
}

TEST_F(Control, AnAllocatedNumberCanBeLocked) {
  ASSERT_EQ(control("allocate").second, "0\n");
  const Fd fd = open("0", O_RDWR);
  EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(Control, FreeOfWhatIsNotAllocatedIsEnoent) {
  EXPECT_EQ(control("free 5").first, ENOENT);
  ASSERT_EQ(control("pin 5").first, 0);
  EXPECT_EQ(control("free 5").first, ENOENT) << "pinned by hand, not handed out";
  EXPECT_EQ(control("free five").first, EINVAL);
}

TEST_F(Control, FreeAllFreesTheAllocatedOnly) {
  for (int i = 0; i < 3; ++i) ASSERT_EQ(control("allocate").first, 0);
  ASSERT_EQ(control("pin kept").first, 0);
  EXPECT_EQ(control("free-all"), Answer(0, "3\n"));
  EXPECT_THAT(names_in(mount_.path() + "/default"), ::testing::ElementsAre(".ctl", "kept"));
  EXPECT_EQ(control("allocate"), Answer(0, "0\n"));
}

TEST_F(Control, PinAndUnpin) {
  EXPECT_EQ(control("pin name").first, 0);
  EXPECT_TRUE(visible("name"));
  EXPECT_EQ(control("pin name").first, 0) << "again is fine";
  EXPECT_EQ(control("unpin name").first, 0);
  EXPECT_FALSE(visible("name"));
  EXPECT_THAT(control("unpin name"), Pair(ENOENT, HasSubstr("not pinned")));
  EXPECT_EQ(control("pin \"two words\"").first, 0);
  EXPECT_TRUE(visible("default/two words"));
  for (const std::string bad : {"pin .", "pin ..", "pin .ctl", "pin a/b", "pin \"\"", "pin"}) {
    EXPECT_EQ(control(bad).first, EINVAL) << bad;
  }
}

TEST_F(Control, UnpinOfAHeldNameLeavesItHeld) {
  Fd fd = hold("a", "EX");
  ASSERT_EQ(control("pin a").first, 0);
  ASSERT_EQ(control("unpin a").first, 0);
  EXPECT_TRUE(visible("a"));
  EXPECT_EQ(mode_of(fd.get()), "EX");
  fd.reset();
  EXPECT_FALSE(visible("a"));
}

TEST_F(Control, BreakTakesTheLockFromAllItsHoldersAndIsLogged) {
  const Fd one = hold("a", "PR");
  const Fd two = hold("a", "PR");
  const Fd waiter = open("a");
  auto wait = in_thread([&] { return write_command(waiter.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(control("break a it hangs"), Answer(0, "2\n"));
  ASSERT_TRUE(ended(wait));
  EXPECT_EQ(wait.get(), 0) << "the next one has it";
  for (const Fd* fd : {&one, &two}) {
    EXPECT_EQ(write_command(fd->get(), "PR"), ESTALE);
    EXPECT_THAT(value_of(fd->get(), "this.error"), HasSubstr("it hangs"));
  }
  EXPECT_TRUE(eventually([&] {
    const std::string log = mount_.log();
    return log.find("break default/a") != std::string::npos &&
           log.find("it hangs") != std::string::npos && log.find("uid 0") != std::string::npos;
  })) << mount_.log();
}

TEST_F(Control, BreakOfEachWay) {
  for (const Way way : kWays) {
    Actor holder;
    ASSERT_EQ(holder.open(mount_.lock("a")), 0);
    ASSERT_EQ(holder.lock(way, 0, Want::kExclusive), 0);
    EXPECT_EQ(control("break a").first, 0) << name_of(way);
    EXPECT_FALSE(visible("a")) << name_of(way);
    EXPECT_EQ(holder.lock(way, 0, Want::kExclusive), ESTALE) << name_of(way);
    EXPECT_EQ(holder.lock(way, 0, Want::kNothing), 0) << name_of(way);
    EXPECT_EQ(holder.lock(way, 0, Want::kExclusive), 0) << name_of(way);
  }
}

TEST_F(Control, BreakOfWhatIsNotHeldIsEnoent) {
  EXPECT_THAT(control("break a"), Pair(ENOENT, HasSubstr("not held")));
  ASSERT_EQ(control("pin a").first, 0);
  EXPECT_EQ(control("break a").first, ENOENT);
}

TEST_F(Control, StatsCountTheLockspace) {
  const Fd one = hold("a", "EX");
  const Fd two = hold("b", "PR");
  ASSERT_EQ(control("pin c").first, 0);
  ASSERT_EQ(control("allocate").first, 0);
  const auto [error, answer] = control("stats");
  EXPECT_EQ(error, 0);
  EXPECT_EQ(picture_value(answer, "held"), "2");
  EXPECT_EQ(picture_value(answer, "waiters"), "0");
  EXPECT_EQ(picture_value(answer, "pinned"), "2");
  EXPECT_EQ(picture_value(answer, "allocated"), "1");
  EXPECT_EQ(picture_value(answer, "capacity"), "2048");
}

TEST_F(Control, AnUnknownCommandIsEinvalAndSaysWhatThereIs) {
  for (const std::string bad :
       {"nonsense", "free", "break", "stats now", "capacity x", "\n", "\""}) {
    EXPECT_EQ(control(bad).first, EINVAL) << bad;
  }
  EXPECT_THAT(control("nonsense").second, HasSubstr("allocate [ID]"));
}

TEST_F(Control, TheAnswerIsReadOnceFromTheSameDescriptor) {
  const std::string path = mount_.path() + "/default/.ctl";
  const Fd one(::open(path.c_str(), O_RDWR));
  const Fd two(::open(path.c_str(), O_RDWR));
  ASSERT_EQ(write_command(one.get(), "allocate"), 0);
  std::string text(100, '\0');
  EXPECT_EQ(read(two.get(), text.data(), text.size()), 0) << "another's answer";
  EXPECT_EQ(read(one.get(), text.data(), text.size()), 2);
  EXPECT_EQ(read(one.get(), text.data(), text.size()), 0);
  ASSERT_EQ(write_command(one.get(), "allocate"), 0);
  ASSERT_EQ(read(one.get(), text.data(), text.size()), 2);
  EXPECT_EQ(text.substr(0, 2), "1\n");
}

TEST_F(Control, OnlyRootAndTheLockspacesOwnerMayBreakAndGovern) {
  Actor owner;
  Actor stranger;
  ASSERT_EQ(owner.become(1000), 0);
  ASSERT_EQ(stranger.become(1001), 0);
  ASSERT_EQ(owner.mkdir(mount_.path() + "/theirs", 0777), 0);
  ASSERT_EQ(chmod((mount_.path() + "/theirs").c_str(), 0777), 0);
  const std::string path = mount_.path() + "/theirs/.ctl";
  ASSERT_EQ(owner.open(path, O_RDWR), 0);
  ASSERT_EQ(stranger.open(path, O_RDWR), 0);
  Fd holder = hold("theirs/a", "EX");
  for (const std::string command : {"break a", "capacity 10", "free-all"}) {
    EXPECT_EQ(stranger.write(0, command), EPERM) << command;
  }
  EXPECT_EQ(mode_of(holder.get()), "EX");
  EXPECT_EQ(stranger.write(0, "allocate"), 0) << "whoever may write may have a number";
  for (const std::string command : {"break a", "capacity 10", "free-all"}) {
    EXPECT_EQ(owner.write(0, command), 0) << command;
  }
  EXPECT_FALSE(visible("theirs/a"));
}

TEST_F(Control, AnotherUsersNumberAndPinAreNotYours) {
  Actor owner;
  Actor stranger;
  const std::string path = mount_.path() + "/default/.ctl";
  for (Actor* actor : {&owner, &stranger}) ASSERT_EQ(actor->open(path, O_RDWR), 0);
  ASSERT_EQ(owner.become(1000), 0);
  ASSERT_EQ(stranger.become(1001), 0);
  ASSERT_EQ(owner.write(0, "allocate 1"), 0);
  ASSERT_EQ(owner.write(0, "pin a"), 0);
  EXPECT_EQ(stranger.write(0, "free 1"), EPERM);
  EXPECT_EQ(stranger.write(0, "unpin a"), EPERM);
  EXPECT_EQ(owner.write(0, "free 1"), 0);
  EXPECT_EQ(owner.write(0, "unpin a"), 0);
}

TEST_F(Control, TheControlFileIsNoLockAndCannotBeRemoved) {
  const std::string path = mount_.path() + "/default/.ctl";
  EXPECT_EQ(unlink(path.c_str()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0666), -1);
  EXPECT_EQ(errno, EEXIST);
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(flock(fd, LOCK_EX), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  struct flock whole {};
  whole.l_type = F_WRLCK;
  EXPECT_EQ(fcntl(fd, F_SETLK, &whole), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  close(fd);
}

}  // namespace
}  // namespace lockfs::test
