// SPDX-License-Identifier: MIT
// What one user may use of the mount: descriptors, waiters, names, lockspaces.
#include <dirent.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;

int error_of(int result) { return result == 0 ? 0 : errno; }

// A mount whose limits the test names; Ann is the one who reaches them.
class LimitedMount {
 public:
  explicit LimitedMount(const std::string& options) : mount_({"-o", options}) {}
  Fd open(const std::string& name, int flags = O_RDWR | O_CREAT) const {
    return Fd(::open(mount_.lock(name).c_str(), flags | O_CLOEXEC, 0666));
  }
  int open_error(const std::string& name, int flags = O_RDWR | O_CREAT) const {
    const Fd fd = open(name, flags);
    return fd.valid() ? 0 : errno;
  }
  int control(const std::string& command) const {
    const Fd fd = open(".ctl", O_RDWR);
    return write_command(fd.get(), command);
  }
  bool logged(const std::string& words) const {
    return eventually([&] { return mount_.log().find(words) != std::string::npos; });
  }
  const Mount* operator->() const { return &mount_; }

 private:
  Mount mount_;
};

TEST(Limits, OpenDescriptorsOfAUser) {
  const LimitedMount mount("max_opens_per_user=3");
  {
    const As ann(kAnn);
    std::vector<Fd> three;
    for (int i = 0; i < 3; ++i) three.push_back(mount.open("a" + std::to_string(i)));
    for (const Fd& fd : three) ASSERT_TRUE(fd.valid());
    EXPECT_EQ(mount.open_error("b"), ENOLCK);
    EXPECT_EQ(mount.open_error("b", O_RDWR | O_CREAT | O_EXCL), ENOLCK);
    EXPECT_EQ(mount.open_error(".ctl", O_RDWR), ENOLCK);
    EXPECT_EQ(opendir(mount->path().c_str()), nullptr) << "a directory counts too";
    EXPECT_EQ(errno, ENOLCK);
    three.pop_back();
    EXPECT_EQ(mount.open_error("b"), 0);
  }
  EXPECT_TRUE(mount.logged("uid 12345")) << mount->log();
  EXPECT_THAT(mount->log(), HasSubstr("max_opens_per_user=3"));
}

TEST(Limits, OfOneUserAreNotThoseOfAnotherAndRootHasNone) {
  const LimitedMount mount("max_opens_per_user=2,max_names_per_user=2");
  std::vector<Fd> all;
  for (const uid_t uid : {kAnn, kBen}) {
    const As user(uid);
    for (int i = 0; i < 2; ++i) {
      all.push_back(
          mount.open(std::to_string(uid) + "." + std::to_string(i), O_RDWR | O_CREAT | O_EXCL));
      EXPECT_TRUE(all.back().valid()) << uid;
    }
    EXPECT_EQ(mount.open_error("more"), ENOLCK) << uid;
  }
  for (int i = 0; i < 20; ++i) {
    all.push_back(mount.open("root" + std::to_string(i), O_RDWR | O_CREAT | O_EXCL));
    EXPECT_TRUE(all.back().valid());
  }
}

TEST(Limits, WaitersOfAUser) {
  const LimitedMount mount("max_waiters_per_user=2");
  Fd holder = mount.open("a", O_RDWR | O_CREAT | O_EXCL);
  const auto wait_as_ann = [&] {
    const As ann(kAnn);
    const Fd fd = mount.open("a");
    return write_command(fd.get(), "PR");
  };
  auto one = in_thread(wait_as_ann);
  auto two = in_thread(wait_as_ann);
  const std::string path = mount->lock("a");
  ASSERT_TRUE(eventually([&] { return picture_value(slurp(path), "waiters_total") == "2"; }));
  {
    const As ann(kAnn);
    const Fd third = mount.open("a");
    EXPECT_EQ(write_command(third.get(), "PR"), ENOLCK);
    EXPECT_THAT(value_of(third.get(), "this.error"), HasSubstr("limit"));
    EXPECT_EQ(flock_of(third.get(), LOCK_SH), ENOLCK);
    EXPECT_EQ(fcntl_of(third.get(), F_OFD_SETLKW, F_RDLCK), ENOLCK);
    EXPECT_EQ(write_command(third.get(), "PR try"), EAGAIN) << "who does not wait is not counted";
  }
  EXPECT_TRUE(mount.logged("uid 12345")) << mount->log();
  holder.reset();
  EXPECT_EQ(one.get(), 0);
  EXPECT_EQ(two.get(), 0);
}

TEST(Limits, NamesThatAUserHoldsOrHasPinned) {
  const LimitedMount mount("max_names_per_user=2");
  {
    const As ann(kAnn);
    const Fd one = mount.open("one", O_RDWR | O_CREAT | O_EXCL);
    ASSERT_TRUE(one.valid());
    ASSERT_EQ(mount.control("pin two"), 0);
    EXPECT_EQ(mount.open_error("three", O_RDWR | O_CREAT | O_EXCL), ENOLCK);
    EXPECT_EQ(mount.control("pin three"), ENOLCK);
    EXPECT_EQ(mount.control("allocate"), ENOLCK);
    const Fd fd = mount.open("three");
    ASSERT_TRUE(fd.valid());
    EXPECT_EQ(error_of(futimens(fd.get(), nullptr)), ENOLCK) << "touch pins";
    EXPECT_EQ(write_command(fd.get(), "CR"), ENOLCK);
    EXPECT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), ENOLCK);
    EXPECT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_WRLCK), ENOLCK);
    EXPECT_EQ(error_of(access(mount->lock("three").c_str(), F_OK)), ENOENT)
        << "a refusal leaves nothing";
    EXPECT_EQ(mount.control("unpin two"), 0);
    EXPECT_EQ(write_command(fd.get(), "CR"), 0);
    EXPECT_EQ(write_command(fd.get(), "EX"), 0) << "a conversion takes no other name";
  }
  EXPECT_TRUE(mount.logged("uid 12345")) << mount->log();
}

TEST(Limits, AreGivenBackByDeath) {
  const LimitedMount mount("max_opens_per_user=4,max_waiters_per_user=1,max_names_per_user=2");
  const Fd held = mount.open("held", O_RDWR | O_CREAT | O_EXCL);
  const std::string path = mount->lock("held");
  for (int round = 0; round < 20; ++round) {
    const Child ann([&] {
      if (!become(kAnn)) return 1;
      const Fd one = mount.open("one", O_RDWR | O_CREAT | O_EXCL);
      const Fd two = mount.open("two", O_RDWR | O_CREAT | O_EXCL);
      const Fd waiting = mount.open("held");
      return one.valid() && two.valid() ? write_command(waiting.get(), "EX") : 2;
    });
    ASSERT_TRUE(eventually([&] { return picture_value(slurp(path), "waiters_total") == "1"; }))
        << round;
    kill(ann.pid(), SIGKILL);
    ASSERT_TRUE(eventually([&] {
      return picture_value(slurp(path), "waiters_total") == "0" &&
             access(mount->lock("two").c_str(), F_OK) != 0;
    })) << round;
  }
}

TEST(Limits, LockspacesOfTheMount) {
  const LimitedMount mount("max_lockspaces=3");
  const As ann(kAnn);
  EXPECT_EQ(mkdir((mount->path() + "/two").c_str(), 0777), 0);
  EXPECT_EQ(mkdir((mount->path() + "/three").c_str(), 0777), 0);
  EXPECT_EQ(error_of(mkdir((mount->path() + "/four").c_str(), 0777)), ENOSPC);
  EXPECT_TRUE(mount.logged("max_lockspaces=3")) << mount->log();
  EXPECT_THAT(mount->log(), HasSubstr("uid 12345"));
  EXPECT_EQ(rmdir((mount->path() + "/two").c_str()), 0);
  EXPECT_EQ(mkdir((mount->path() + "/four").c_str(), 0777), 0);
}

TEST(Limits, LockspacesOfAUser) {
  const LimitedMount mount("max_lockspaces_per_user=2");
  const auto make = [&](const std::string& name) {
    return error_of(mkdir((mount->path() + "/" + name).c_str(), 0777));
  };
  {
    const As ann(kAnn);
    EXPECT_EQ(make("one"), 0);
    EXPECT_EQ(make("two"), 0);
    EXPECT_EQ(make("three"), EDQUOT);
    EXPECT_EQ(rmdir((mount->path() + "/one").c_str()), 0);
    EXPECT_EQ(make("three"), 0);
  }
  EXPECT_TRUE(mount.logged("max_lockspaces_per_user=2")) << mount->log();
  for (const std::string name : {"a", "b", "c"}) EXPECT_EQ(make(name), 0) << "root has no limit";
}

TEST(Limits, OfTheRootsModeSayWhoMayMakeLockspaces) {
  const LimitedMount mount("root_mode=0755");
  const As ann(kAnn);
  EXPECT_EQ(error_of(mkdir((mount->path() + "/mine").c_str(), 0777)), EACCES);
}

// A user who may read a lockspace, but not lock in it, asks and asks.
TEST(Limits, WhoIsRefusedAgainAndAgainDoesNotFillTheLog) {
  const LimitedMount mount("max_opens_per_user=1");
  const std::string space = mount->path() + "/ours";
  ASSERT_EQ(mkdir(space.c_str(), 0755), 0);
  const Fd held(::open((space + "/a").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  const std::string before = mount->log();
  {
    const As ann(kAnn);
    const Fd fd(::open((space + "/a").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(fd.valid());
    for (int i = 0; i < 10000; ++i) {
      ASSERT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), EACCES);
      ASSERT_EQ(mount.open_error("b"), ENOLCK);
    }
  }
  EXPECT_TRUE(mount.logged("more like this were not logged: locks refused, uid 12345"));
  EXPECT_TRUE(mount.logged("more like this were not logged: opens refused, uid 12345"));
  const std::string said = mount->log().substr(before.size());
  EXPECT_THAT(said, HasSubstr("lock ours/a refused to uid 12345"));
  EXPECT_LT(std::count(said.begin(), said.end(), '\n'), 200) << said;
}

}  // namespace
}  // namespace lockfs::test
