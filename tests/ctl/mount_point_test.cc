// SPDX-License-Identifier: MIT
// How lockctl finds the mount.
#include "ctl/mount_point.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "ctl/failure.h"
#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using ctl::mounts_in;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using LockctlMount = LockctlTest;

TEST(LockctlMountinfo, ListsWholeMountsOfLockfs) {
  const auto mounts = mounts_in(
      "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "42 20 0:39 / /mnt/my\\040locks rw,nosuid shared:7 master:2 - fuse.lockfs memory: rw\n"
      "43 20 0:40 / /mnt/other rw - fuse.lockfs shm:x rw\n"
      "44 20 0:41 /default /mnt/part rw - fuse.lockfs memory: rw\n"
      "45 20 0:42 / /mnt/s rw - fuse.sshfs lockfs: rw\n"
      "46 43 0:43 / /mnt/other rw - tmpfs none rw\n"
      "nonsense\n");
  ASSERT_EQ(mounts.size(), 1U) << "/mnt/other is covered";
  EXPECT_EQ(mounts[0].path, "/mnt/my locks");
  EXPECT_EQ(mounts[0].source, "memory:");
  EXPECT_EQ(mounts[0].device, "0:39");
}

TEST_F(LockctlMount, OfSeveralOneMustBeChosen) {
  const Mount second;
  const Circumstances bare{{{"LOCKFS_MOUNT", ""}}, 0, {}};
  const Ended ended = run(line({"list"}), bare);
  EXPECT_EQ(ended.status, 64);
  EXPECT_THAT(ended.err, AllOf(HasSubstr(mount_.path()), HasSubstr(second.path()),
                               HasSubstr("--mount"), HasSubstr("LOCKFS_MOUNT")));
  const Fd a = hold("a", "EX");
  EXPECT_THAT(run(line({"--mount", mount_.path() + "/", "list"}), bare).out,
              HasSubstr("default/a"));
  EXPECT_THAT(run(line({"--mount", mount_.path(), "list"}), bare).out, HasSubstr("default/a"));
  EXPECT_EQ(run(line({"show", mount_.lock("a")}), bare).status, 0) << "a path says which";
  auto other = here();
  other.environment["LOCKFS_MOUNT"] = second.path();
  EXPECT_EQ(run(line({"show", "a"}), other).status, 1);
  EXPECT_EQ(run(line({"show", mount_.lock("a")}), other).status, 0);
}

TEST_F(LockctlMount, WhatIsNoMountIsRefusedWithThoseThatAre) {
  const Ended ended = lockctl({"--mount", "/tmp", "list"});
  EXPECT_EQ(ended.status, 69);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("/tmp"), HasSubstr(mount_.path())));
}

TEST_F(LockctlMount, OfAMountThatHasEndedItSaysWhatToDo) {
  const Mount dead;
  kill(dead.daemon(), SIGKILL);
  ASSERT_TRUE(eventually([&] { return lockctl({"--mount", dead.path(), "list"}).status != 0; }));
  for (const Words& command : std::vector<Words>{{"list"},
                                                 {"list", "default"},
                                                 {"waits"},
                                                 {"pin", "a"},
                                                 {"show", "a"},
                                                 {"break", "a", "--why", "x", "--yes"},
                                                 {"alloc"},
                                                 {"events"},
                                                 {"run", "-n", "a", "true"}}) {
    Words words = {"--mount", dead.path()};
    words.insert(words.end(), command.begin(), command.end());
    const Ended ended = lockctl(words);
    EXPECT_EQ(ended.status, 69) << command[0] << ": " << ended.err;
    EXPECT_THAT(ended.err, HasSubstr("umount -l " + dead.path())) << command[0];
  }
}

TEST_F(LockctlMount, AMountWhoseDaemonRefusedIsUnavailable) {
  try {
    ctl::fail_if_ended({}, "a", ECONNREFUSED);
    FAIL() << "it came back";
  } catch (const ctl::Failure& failure) {
    EXPECT_EQ(failure.code(), ctl::ExitCode::kUnavailable);
  }
}

TEST_F(LockctlMount, APartOfOneIsSaidToBeAPart) {
  const std::string place = mount_.path() + ".part";
  ASSERT_EQ(mkdir(place.c_str(), 0755), 0);
  ASSERT_EQ(mount((mount_.path() + "/default").c_str(), place.c_str(), nullptr, MS_BIND, nullptr),
            0);
  const Ended ended = lockctl({"--mount", place, "list"});
  umount2(place.c_str(), MNT_DETACH);
  rmdir(place.c_str());
  EXPECT_EQ(ended.status, 69);
  EXPECT_THAT(ended.err, HasSubstr("/default of a lockfs alone"));
}

TEST_F(LockctlMount, WhatIsHiddenByAnotherMountDoesNotCount) {
  const Mount second;  // So that the choice is asked for, and listed.
  const std::string above = mount_.path() + ".above";
  const std::string hidden = above + "/hidden";
  ASSERT_EQ(mkdir(above.c_str(), 0755), 0);
  ASSERT_EQ(mkdir(hidden.c_str(), 0755), 0);
  Program daemon({lockfs_binary(), "-f", "memory:", hidden});
  EXPECT_EQ(lockctl({"--mount", hidden, "ready"}).status, 0);
  EXPECT_EQ(mount("none", above.c_str(), "tmpfs", 0, nullptr), 0);
  const Ended ended = run(line({"list"}), {{{"LOCKFS_MOUNT", ""}}, 0, {}});
  umount2(above.c_str(), MNT_DETACH);
  daemon.signal(SIGTERM);
  daemon.wait();
  rmdir(hidden.c_str());
  rmdir(above.c_str());
  EXPECT_THAT(ended.err, AllOf(HasSubstr(second.path()), Not(HasSubstr(hidden))));
}

}  // namespace
}  // namespace lockfs::test
