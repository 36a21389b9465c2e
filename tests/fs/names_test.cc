// SPDX-License-Identifier: MIT
// Names: pins, what rm and chmod do, lockspaces, permissions.
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

int error_of(int result) { return result == 0 ? 0 : errno; }

class Names : public MountTest {
 protected:
  int touch(const std::string& name) const {
    const Fd fd = open(name, O_WRONLY | O_CREAT);
    return error_of(futimens(fd.get(), nullptr));
  }
  int remove(const std::string& name) const { return error_of(unlink(mount_.lock(name).c_str())); }
  mode_t bits(const std::string& name) const {
    struct stat attributes {};
    EXPECT_EQ(stat(mount_.lock(name).c_str(), &attributes), 0) << name;
    return attributes.st_mode & 07777;
  }
  int chmod(const std::string& name, mode_t mode) const {
    return error_of(::chmod(mount_.lock(name).c_str(), mode));
  }
  std::string space(const std::string& name) const { return mount_.path() + "/" + name; }
};

TEST_F(Names, AnExplicitTimePinsAName) {
  ASSERT_EQ(touch("a"), 0);
  EXPECT_TRUE(visible("a")) << "free, and there";
  EXPECT_EQ(value("a", "mode"), "free");
  EXPECT_EQ(value("a", "pinned"), "true");
  EXPECT_EQ(value("a", "holders_total"), "0");
  {
    const Fd fd = hold("a", "EX");
    EXPECT_EQ(value("a", "mode"), "EX");
  }
  EXPECT_TRUE(visible("a")) << "a release does not unpin";
}

TEST_F(Names, TheTouchProgramPins) {
  EXPECT_EQ(system(("touch " + mount_.lock("a")).c_str()), 0);
  EXPECT_TRUE(visible("a"));
  EXPECT_EQ(system(("rm " + mount_.lock("a")).c_str()), 0);
  EXPECT_FALSE(visible("a"));
}

TEST_F(Names, OpeningAndLockingDoNotPin) {
  const Fd fd = open("a", O_RDWR | O_CREAT | O_TRUNC);
  ASSERT_EQ(flock_of(fd.get(), LOCK_EX), 0);
  ASSERT_EQ(flock_of(fd.get(), LOCK_UN), 0);
  EXPECT_EQ(ftruncate(fd.get(), 0), 0) << "a shell's > does this";
  EXPECT_FALSE(visible("a"));
}

TEST_F(Names, RmOfAFreePinnedNameUnpinsIt) {
  ASSERT_EQ(touch("a"), 0);
  EXPECT_EQ(remove("a"), 0);
  EXPECT_FALSE(visible("a"));
  EXPECT_EQ(remove("a"), ENOENT);
}

TEST_F(Names, RmOfAHeldLockIsEbusy) {
  for (const std::string mode : {"CR", "PR", "EX", "SLOT size=2"}) {
    const Fd fd = hold("a", mode);
    EXPECT_EQ(remove("a"), EBUSY) << mode;
    EXPECT_NE(mode_of(fd.get()), "none") << mode;
  }
  ASSERT_EQ(touch("b"), 0);
  const Fd fd = hold("b", "PR");
  EXPECT_EQ(remove("b"), EBUSY) << "pinned or not";
}

TEST_F(Names, ExclusiveCreateOfAPinnedNameIsEexist) {
  ASSERT_EQ(touch("a"), 0);
  EXPECT_EQ(open_error("a", O_RDWR | O_CREAT | O_EXCL), EEXIST) << "the name is there";
}

TEST_F(Names, ModeBitsComeFromTheLockspaceNotTheUmask) {
  const mode_t before = umask(077);
  EXPECT_EQ(mkdir(space("group").c_str(), 0770), 0);
  EXPECT_EQ(::chmod(space("group").c_str(), 0770), 0);
  const Fd fd = hold("a", "EX");
  const Fd other = hold("group/a", "EX");
  umask(before);
  EXPECT_EQ(bits("a"), 0666U);
  EXPECT_EQ(bits("group/a"), 0660U);
}

TEST_F(Names, ChmodOfAPinnedNameNarrowsIt) {
  ASSERT_EQ(touch("a"), 0);
  ASSERT_EQ(chmod("a", 0640), 0);
  EXPECT_EQ(bits("a"), 0640U);
  Actor stranger;
  ASSERT_EQ(stranger.become(1000), 0);
  EXPECT_EQ(stranger.open(mount_.lock("a"), O_RDWR), EACCES);
  EXPECT_EQ(stranger.open(mount_.lock("a"), O_RDONLY), EACCES);
  ASSERT_EQ(chmod("a", 0777), 0);
  EXPECT_EQ(bits("a"), 0666U) << "never wider than the lockspace";
  EXPECT_EQ(stranger.open(mount_.lock("a"), O_RDWR), 0);
}

TEST_F(Names, ChmodOfALockThatIsNotPinnedIsRefused) {
  const Fd fd = hold("a", "EX");
  EXPECT_EQ(chmod("a", 0600), EPERM);
  EXPECT_EQ(bits("a"), 0666U);
}

TEST_F(Names, ANarrowedNameCannotBeLockedByThoseShutOut) {
  ASSERT_EQ(touch("a"), 0);
  ASSERT_EQ(chmod("a", 0644), 0);
  Actor stranger;
  ASSERT_EQ(stranger.become(1000), 0);
  ASSERT_EQ(stranger.open(mount_.lock("a"), O_RDONLY), 0);
  EXPECT_EQ(stranger.flock(0, LOCK_EX | LOCK_NB), EACCES);
  EXPECT_EQ(stranger.flock(0, LOCK_SH | LOCK_NB), EACCES);
  EXPECT_EQ(value("a", "mode"), "free");
}

TEST_F(Names, OnlyItsOwnerOrTheLockspacesMayUnpinOrChmod) {
  Actor owner;
  Actor stranger;
  ASSERT_EQ(owner.become(1000), 0);
  ASSERT_EQ(stranger.become(1001), 0);
  EXPECT_EQ(control("pin rootish").first, 0);
  EXPECT_EQ(owner.unlink(mount_.lock("rootish")), EPERM);
  EXPECT_EQ(owner.chmod(mount_.lock("rootish"), 0600), EPERM);
  ASSERT_EQ(owner.open(mount_.path() + "/default/.ctl", O_RDWR), 0);
  ASSERT_EQ(owner.write(0, "pin mine"), 0);
  EXPECT_EQ(stranger.unlink(mount_.lock("mine")), EPERM);
  EXPECT_EQ(owner.unlink(mount_.lock("mine")), 0);
  EXPECT_EQ(owner.write(0, "pin again"), 0);
  EXPECT_EQ(remove("again"), 0) << "root may";
}

TEST_F(Names, MkdirMakesALockspaceAndRmdirEndsIt) {
  ASSERT_EQ(mkdir(space("one").c_str(), 0755), 0);
  EXPECT_EQ(error_of(mkdir(space("one").c_str(), 0755)), EEXIST);
  EXPECT_THAT(names_in(mount_.path()), ::testing::ElementsAre(".lockfs", "default", "one"));
  {
    const Fd fd = hold("one/a", "EX");
    EXPECT_EQ(error_of(rmdir(space("one").c_str())), EBUSY);
  }
  EXPECT_EQ(control("pin b", "one").first, 0);
  EXPECT_EQ(error_of(rmdir(space("one").c_str())), EBUSY) << "pinned names are in use";
  EXPECT_EQ(control("unpin b", "one").first, 0);
  EXPECT_EQ(error_of(rmdir(space("one").c_str())), 0);
  EXPECT_EQ(error_of(rmdir(space("one").c_str())), ENOENT);
  EXPECT_EQ(error_of(rmdir(space("default").c_str())), EBUSY);
  EXPECT_EQ(error_of(rmdir(space(".lockfs").c_str())), EBUSY);
}

TEST_F(Names, ALockspacesBitsDecideWhoMayLock) {
  ASSERT_EQ(mkdir(space("mine").c_str(), 0755), 0);
  Actor stranger;
  ASSERT_EQ(stranger.become(1000), 0);
  EXPECT_EQ(stranger.open(mount_.lock("mine/new")), EACCES) << "may not make names there";
  const Fd holder = hold("mine/held", "PR");
  EXPECT_EQ(stranger.open(mount_.lock("mine/held"), O_RDWR), EACCES);
  ASSERT_EQ(stranger.open(mount_.lock("mine/held"), O_RDONLY), 0);
  EXPECT_EQ(stranger.flock(2, LOCK_SH | LOCK_NB), EACCES) << "reading is not locking";
  ASSERT_EQ(::chmod(space("mine").c_str(), 0700), 0);
  EXPECT_EQ(stranger.open(mount_.lock("mine/held"), O_RDONLY), EACCES);
}

TEST_F(Names, AnotherUserMayLockANameThatIsHeld) {
  const Fd holder = hold("a", "PR");
  Actor stranger;
  ASSERT_EQ(stranger.become(1000), 0);
  ASSERT_EQ(stranger.open(mount_.lock("a"), O_RDWR | O_CREAT), 0) << "fs.protected_regular";
  EXPECT_EQ(stranger.flock(0, LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(value("a", "holders.1.uid"), "1000");
}

TEST_F(Names, ANameMayHaveAnyBytesUpToTheLimit) {
  const std::vector<std::string> names = {
      "with space",         "ümlaut", "a\"b\\c", "new\nline", "-dash", std::string("\x01\xff\xfe"),
      std::string(255, 'x')};
  for (const std::string& name : names) {
    const Fd fd = hold("default/" + name, "EX");
    EXPECT_THAT(names_in(space("default")), ::testing::Contains(name));
    EXPECT_EQ(value("default/" + name, "mode"), "EX") << name;
  }
  EXPECT_EQ(value("default/a", "lock"), "");
  EXPECT_EQ(open_error("default/" + std::string(256, 'x'), O_RDWR | O_CREAT), ENAMETOOLONG);
}

TEST_F(Names, ThePictureNamesTheLock) {
  for (const std::string name : {"plain", "with space", "a\"b\\c", "yes", "12", "new\nline", "ü"}) {
    const Fd fd = hold("default/" + name, "EX");
    EXPECT_EQ(value("default/" + name, "lock"), name);
  }
}

TEST_F(Names, LocksCannotBeMovedLinkedOrMadeOtherwise) {
  const Fd fd = hold("a", "EX");
  const std::string a = mount_.lock("a");
  const std::string b = mount_.lock("b");
  EXPECT_EQ(error_of(rename(a.c_str(), b.c_str())), EPERM);
  EXPECT_EQ(error_of(link(a.c_str(), b.c_str())), EPERM);
  EXPECT_EQ(error_of(symlink(a.c_str(), b.c_str())), EPERM);
  EXPECT_EQ(error_of(mkfifo(b.c_str(), 0666)), EPERM);
  EXPECT_EQ(error_of(mkdir(b.c_str(), 0777)), EPERM);
  EXPECT_EQ(mode_of(fd.get()), "EX");
}

TEST_F(Names, TheInodeNumberIsTheLocks) {
  const Fd one = hold("a", "PR");
  const Fd two = hold("a", "PR");
  const Fd other = hold("b", "PR");
  const auto inode = [](const Fd& fd) {
    struct stat attributes {};
    EXPECT_EQ(fstat(fd.get(), &attributes), 0);
    return attributes.st_ino;
  };
  EXPECT_EQ(inode(one), inode(two));
  EXPECT_NE(inode(one), inode(other));
  struct stat by_name {};
  ASSERT_EQ(stat(mount_.lock("a").c_str(), &by_name), 0);
  EXPECT_EQ(inode(one), by_name.st_ino);
}

}  // namespace
}  // namespace lockfs::test
