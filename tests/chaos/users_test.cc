// SPDX-License-Identifier: MIT
// Who may: what ordinary users can do to their own locks, and cannot do to those of others.
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

int error_of(int result) { return result == 0 ? 0 : errno; }

class Users : public MountTest {
 protected:
  std::string space(const std::string& name) const { return mount_.path() + "/" + name; }
  void make_space(uid_t uid, const std::string& name, mode_t mode) const {
    const As user(uid);
    ASSERT_EQ(mkdir(space(name).c_str(), mode), 0);
    ASSERT_EQ(chmod(space(name).c_str(), mode), 0);
  }
  int control_error(uid_t uid, const std::string& command, const std::string& lockspace) const {
    const As user(uid);
    return control(command, lockspace).first;
  }
  std::string info(uid_t uid, const std::string& file) const {
    const As user(uid);
    return slurp(mount_.path() + "/.lockfs/" + file);
  }
  bool logged(const std::vector<std::string>& words) const {
    return eventually([&] {
      std::istringstream log(mount_.log());
      for (std::string line; std::getline(log, line);) {
        bool all = true;
        for (const std::string& word : words) all &= line.find(word) != std::string::npos;
        if (all) return true;
      }
      return false;
    });
  }
};

TEST_F(Users, TheMountIsForAllAndTheKernelChecksThem) {
  std::ifstream mounts("/proc/mounts");
  std::string line;
  while (std::getline(mounts, line) && line.find(mount_.path()) == std::string::npos) {
  }
  EXPECT_THAT(line, AllOf(HasSubstr("allow_other"), HasSubstr("default_permissions")));
}

TEST_F(Users, OrdinaryUsersLockAndExcludeEachOther) {
  const std::string path = mount_.lock("a");
  const auto lock_alone = [&](uid_t uid) {
    if (!become(uid)) return 1;
    const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0666));
    return fd.valid() && mode_of(fd.get()) == "EX" ? 0 : 2;
  };
  for (const uid_t uid : {kAnn, kBen, kAnn}) {
    Child child([&] { return lock_alone(uid); });
    EXPECT_EQ(child.wait(), 0) << uid;
  }
  const Fd anns = [&] {
    const As ann(kAnn);
    return hold("a", "PR");
  }();
  EXPECT_EQ(value("a", "holders.0.uid"), std::to_string(kAnn));
  Child ben([&] {
    if (!become(kBen)) return 1;
    const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT, 0666));
    if (!fd.valid()) return 2;
    if (flock_of(fd.get(), LOCK_EX | LOCK_NB) != EAGAIN) return 3;
    if (write_command(fd.get(), "PW try") != EAGAIN) return 4;
    return flock_of(fd.get(), LOCK_SH | LOCK_NB) == 0 ? 0 : 5;
  });
  EXPECT_EQ(ben.wait(), 0);
}

TEST_F(Users, ALockspaceOfMode0700IsClosedToOthers) {
  make_space(kAnn, "private", 0700);
  Fd holder;
  {
    const As ann(kAnn);
    holder = hold("private/secret", "EX note=hush");
  }
  const As ben(kBen);
  EXPECT_EQ(::open(space("private").c_str(), O_RDONLY | O_DIRECTORY), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_THAT(names_in(space("private")), IsEmpty());
  for (const std::string name : {"private/secret", "private/other", "private/.ctl"}) {
    EXPECT_EQ(open_error(name, O_RDONLY), EACCES) << name;
    EXPECT_EQ(open_error(name, O_RDWR | O_CREAT), EACCES) << name;
    EXPECT_EQ(open_error(name, O_RDWR | O_CREAT | O_EXCL), EACCES) << name;
    EXPECT_EQ(error_of(unlink(mount_.lock(name).c_str())), EACCES) << name;
    struct stat attributes {};
    EXPECT_EQ(error_of(stat(mount_.lock(name).c_str(), &attributes)), EACCES) << name;
    EXPECT_EQ(getxattr(mount_.lock(name).c_str(), "user.lockfs.holder", nullptr, 0), -1) << name;
  }
  EXPECT_EQ(error_of(chmod(space("private").c_str(), 0777)), EPERM);
}

TEST_F(Users, AClosedLockspaceIsNotInWhatOthersRead) {
  make_space(kAnn, "private", 0700);
  Fd holder;
  {
    const As ann(kAnn);
    holder = hold("private/secret", "EX note=hush");
  }
  auto wait = in_thread([&] {
    const As ann(kAnn);
    const Fd fd = open("private/secret");
    return write_command(fd.get(), "PR");
  });
  const std::string waiting = "waiters: 1\n";
  ASSERT_TRUE(eventually(
      [&] { return control("stats", "private").second.find(waiting) != std::string::npos; }));
  for (const std::string file : {"locks.json", "waits"}) {
    EXPECT_THAT(info(kAnn, file), HasSubstr("secret")) << file;
    EXPECT_THAT(info(0, file), HasSubstr("secret")) << file;
    EXPECT_THAT(info(kBen, file),
                AllOf(Not(HasSubstr("secret")), Not(HasSubstr("hush")), Not(HasSubstr("private"))))
        << file;
  }
  holder.reset();
  EXPECT_EQ(wait.get(), 0);
}

TEST_F(Users, ANameClosedByChmodIsNotInWhatOthersRead) {
  ASSERT_EQ(control("pin narrow").first, 0);
  ASSERT_EQ(chmod(mount_.lock("narrow").c_str(), 0600), 0);
  const Fd holder = hold("narrow", "EX note=hush");
  {
    const As ben(kBen);
    EXPECT_EQ(open_error("narrow", O_RDONLY), EACCES);
  }
  EXPECT_THAT(info(0, "locks.json"), HasSubstr("hush"));
  EXPECT_THAT(info(kBen, "locks.json"), Not(HasSubstr("hush")));
}

TEST_F(Users, WhoMayReadButNotWriteTheLockspaceCannotLock) {
  make_space(kAnn, "readable", 0755);
  Fd holder;
  {
    const As ann(kAnn);
    holder = hold("readable/a", "PR");
  }
  const As ben(kBen);
  const Fd reader = open("readable/a", O_RDONLY);
  ASSERT_TRUE(reader.valid());
  EXPECT_EQ(value_of(reader.get(), "mode"), "PR") << "reading is allowed";
  for (const int operation : {LOCK_SH, LOCK_EX}) {
    EXPECT_EQ(flock_of(reader.get(), operation), EACCES);
    EXPECT_EQ(flock_of(reader.get(), operation | LOCK_NB), EACCES);
  }
  EXPECT_EQ(fcntl_of(reader.get(), F_OFD_SETLK, F_RDLCK), EACCES);
  EXPECT_EQ(fcntl_of(reader.get(), F_SETLKW, F_RDLCK), EACCES);
  EXPECT_THAT(value_of(reader.get(), "this.error"), HasSubstr("may not write"));
  EXPECT_EQ(write_command(reader.get(), "PR"), EBADF);
  EXPECT_EQ(open_error("readable/a", O_RDWR), EACCES);
  EXPECT_EQ(open_error("readable/new", O_RDWR | O_CREAT), EACCES);
  EXPECT_EQ(open_error("readable/.ctl", O_RDWR), EACCES);
  EXPECT_EQ(value("readable/a", "holders_total"), "1");
  EXPECT_TRUE(logged({"readable/a", "refused", "uid 12346"})) << mount_.log();
}

TEST_F(Users, RootAndTheLockspacesOwnerMayBreakOthersMayNot) {
  make_space(kAnn, "anns", 0777);
  const Fd roots = hold("anns/a", "EX");
  EXPECT_EQ(control_error(kBen, "break anns please", "anns"), EPERM);
  EXPECT_EQ(control_error(kBen, "break a please", "anns"), EPERM);
  EXPECT_EQ(mode_of(roots.get()), "EX");
  EXPECT_TRUE(logged({"break a please", "refused", "uid 12346"})) << mount_.log();
  EXPECT_EQ(control_error(kAnn, "break a it hangs", "anns"), 0) << "even the lock of root";
  EXPECT_EQ(write_command(roots.get(), "PR"), ESTALE);
  EXPECT_TRUE(logged({"break anns/a", "uid 12345", "it hangs"})) << mount_.log();
  Fd bens;
  {
    const As ben(kBen);
    bens = hold("anns/b", "EX");
  }
  EXPECT_EQ(control_error(0, "break b", "anns"), 0);
  EXPECT_EQ(mode_of(bens.get()), "none");
  EXPECT_TRUE(logged({"break anns/b", "uid 0", "no reason given"})) << mount_.log();
  EXPECT_TRUE(logged({"lost", "anns/b", "uid 12346"})) << mount_.log();
}

TEST_F(Users, NobodyBreaksThroughAPrivilegedProgramsOutput) {
  const Fd held = hold("a", "EX");
  // `sudo echo break a > .ctl`: an ordinary user's shell opens the file, a program of root writes.
  Fd ctl;
  {
    const As ben(kBen);
    ctl = Fd(::open((space("default") + "/.ctl").c_str(), O_RDWR));
  }
  ASSERT_TRUE(ctl.valid());
  EXPECT_EQ(write_command(ctl.get(), "break a"), EPERM);
  EXPECT_EQ(write_command(ctl.get(), "capacity 5"), EPERM);
  EXPECT_EQ(write_command(ctl.get(), "free-all"), EPERM);
  EXPECT_EQ(mode_of(held.get()), "EX");
}

TEST_F(Users, NobodyTakesAwayWhatIsNotTheirs) {
  make_space(kAnn, "anns", 0777);
  ASSERT_EQ(control_error(kAnn, "allocate 3", "anns"), 0);
  ASSERT_EQ(control_error(kAnn, "pin kept", "anns"), 0);
  for (const std::string command : {"free 3", "free-all", "unpin kept", "unpin 3", "capacity 9"}) {
    EXPECT_EQ(control_error(kBen, command, "anns"), EPERM) << command;
    EXPECT_TRUE(logged({command, "refused", "uid 12346"})) << command << mount_.log();
  }
  {
    const As ben(kBen);
    EXPECT_EQ(error_of(unlink(mount_.lock("anns/kept").c_str())), EPERM);
    EXPECT_EQ(error_of(unlink(mount_.lock("anns/3").c_str())), EPERM);
    EXPECT_EQ(error_of(chmod(mount_.lock("anns/kept").c_str(), 0600)), EPERM);
    EXPECT_EQ(error_of(chown(mount_.lock("anns/kept").c_str(), kBen, kBen)), EPERM);
    EXPECT_EQ(error_of(chmod(space("anns").c_str(), 0700)), EPERM);
    EXPECT_EQ(error_of(chown(space("anns").c_str(), kBen, kBen)), EPERM);
    EXPECT_EQ(error_of(rmdir(space("anns").c_str())), EPERM);
  }
  EXPECT_TRUE(logged({"rm", "anns/kept", "refused", "uid 12346"})) << mount_.log();
  EXPECT_TRUE(visible("anns/kept"));
  EXPECT_TRUE(visible("anns/3"));
  ASSERT_EQ(control_error(kBen, "pin bens", "anns"), 0);
  EXPECT_EQ(control_error(kAnn, "unpin bens", "anns"), 0) << "the lockspace's owner may";
  ASSERT_EQ(control_error(kBen, "allocate 4", "anns"), 0);
  EXPECT_EQ(control_error(0, "free 4", "anns"), 0) << "root may";
}

TEST_F(Users, NobodyRenewsOrReleasesTheLockOfAnother) {
  Fd anns;
  {
    const As ann(kAnn);
    anns = hold("a", "EX ttl=1h");
  }
  const std::string expires = value("a", "holders.0.expires");
  ASSERT_NE(expires, "");
  {
    const As ben(kBen);
    const Fd bens = open("a");
    EXPECT_EQ(write_command(bens.get(), "renew=2h"), EINVAL);
    EXPECT_EQ(write_command(bens.get(), "renew"), EINVAL);
    EXPECT_EQ(write_command(bens.get(), "UN"), 0) << "its own nothing";
    EXPECT_EQ(flock_of(bens.get(), LOCK_UN), 0);
    EXPECT_EQ(error_of(unlink(mount_.lock("a").c_str())), EBUSY);
  }
  EXPECT_EQ(mode_of(anns.get()), "EX");
  EXPECT_EQ(value("a", "holders.0.expires"), expires);
}

TEST_F(Users, TheValueBlockIsForHoldersAlone) {
  Fd anns;
  {
    const As ann(kAnn);
    anns = hold("a", "EX");
    ASSERT_EQ(fsetxattr(anns.get(), "user.lockfs.lvb", "value", 5, 0), 0);
  }
  const std::string path = mount_.lock("a");
  Child ben([&] {
    if (!become(kBen)) return 1;
    char value[32];
    if (getxattr(path.c_str(), "user.lockfs.lvb", value, 32) >= 0 || errno != EPERM) return 2;
    if (setxattr(path.c_str(), "user.lockfs.lvb", "x", 1, 0) == 0 || errno != EPERM) return 3;
    const Fd fd(::open(path.c_str(), O_RDWR));
    if (fgetxattr(fd.get(), "user.lockfs.lvb", value, 32) >= 0 || errno != EPERM) return 4;
    return fsetxattr(fd.get(), "user.lockfs.lvb", "x", 1, 0) != 0 && errno == EPERM ? 0 : 5;
  });
  EXPECT_EQ(ben.wait(), 0);
  EXPECT_EQ(xattr_of(anns.get(), "user.lockfs.lvb").substr(0, 5), "value");
}

}  // namespace
}  // namespace lockfs::test
