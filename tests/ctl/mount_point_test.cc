// SPDX-License-Identifier: MIT
// How lockctl finds the mount.
#include "ctl/mount_point.h"

#include <signal.h>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using ctl::mounts_in;
using ::testing::AllOf;
using ::testing::HasSubstr;

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
  for (const Words& command :
       std::vector<Words>{{"list"}, {"waits"}, {"pin", "a"}, {"show", "a"}}) {
    Words words = {"--mount", dead.path()};
    words.insert(words.end(), command.begin(), command.end());
    const Ended ended = lockctl(words);
    EXPECT_EQ(ended.status, 69) << command[0] << ": " << ended.err;
  }
  EXPECT_THAT(lockctl({"--mount", dead.path(), "list"}).err, HasSubstr("umount -l"));
}

}  // namespace
}  // namespace lockfs::test
