// SPDX-License-Identifier: MIT
// `ttl`, `renew`, `onlost`: locks that end by themselves, and what their owners are told.
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

class Ttl : public MountTest {
 protected:
  bool eventually_lost(const Fd& fd) const {
    return eventually([&] { return mode_of(fd.get()) == "none"; });
  }
};

TEST_F(Ttl, ALockIsLostAfterItsTtl) {
  const Fd fd = hold("a", "EX ttl=100ms");
  EXPECT_NE(value("a", "holders.0.expires"), "");
  EXPECT_TRUE(eventually_lost(fd));
  EXPECT_FALSE(visible("a"));
  EXPECT_EQ(value_of(fd.get(), "stats.lost"), "1");
  EXPECT_THAT(value_of(fd.get(), "this.error"), ::testing::HasSubstr("ttl"));
}

TEST_F(Ttl, ALostLockGoesToTheNextWaiter) {
  const Fd fd = hold("a", "EX ttl=200ms");
  const Fd next = open("a");
  auto wait = in_thread([&] { return write_command(next.get(), "EX"); });
  ASSERT_TRUE(ended(wait));
  EXPECT_EQ(wait.get(), 0);
  EXPECT_EQ(mode_of(next.get()), "EX");
}

TEST_F(Ttl, EveryFurtherUseOfALostDescriptorSaysEstaleUntilItReleases) {
  const Fd fd = hold("a", "EX ttl=50ms");
  ASSERT_TRUE(eventually_lost(fd));
  const Fd other = hold("a", "EX");
  EXPECT_EQ(write_command(fd.get(), "EX"), ESTALE);
  EXPECT_EQ(write_command(fd.get(), "NL try"), ESTALE);
  EXPECT_EQ(write_command(fd.get(), "renew"), ESTALE);
  EXPECT_EQ(write_command(fd.get(), "renew=5s"), ESTALE);
  EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), ESTALE);
  EXPECT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_WRLCK), ESTALE);
  EXPECT_EQ(mode_of(other.get()), "EX");
  EXPECT_EQ(write_command(fd.get(), "UN"), 0);
  EXPECT_EQ(mode_of(other.get()), "EX") << "UN forgets the loss and touches nobody else";
  EXPECT_EQ(write_command(fd.get(), "EX try"), EAGAIN);
}

TEST_F(Ttl, FlockUnForgetsALossToo) {
  const Fd fd = hold("a", "EX ttl=50ms");
  ASSERT_TRUE(eventually_lost(fd));
  EXPECT_EQ(flock_of(fd.get(), LOCK_UN), 0);
  EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(Ttl, RenewStartsTheTtlAnew) {
  const Fd fd = hold("a", "EX ttl=1h");
  const std::string first = value("a", "holders.0.expires");
  ASSERT_TRUE(eventually([&] {
    EXPECT_EQ(write_command(fd.get(), "renew"), 0);
    return value("a", "holders.0.expires") > first;
  }));
}

TEST_F(Ttl, RenewWithADurationChangesTheTtl) {
  const Fd fd = hold("a", "EX ttl=30s");
  const std::string first = value("a", "holders.0.expires");
  ASSERT_EQ(write_command(fd.get(), "renew=2h"), 0);
  EXPECT_GT(value("a", "holders.0.expires"), first);
  ASSERT_EQ(write_command(fd.get(), "renew=50ms"), 0);
  EXPECT_TRUE(eventually_lost(fd));
}

TEST_F(Ttl, ARenewedLockOutlivesItsFirstTtl) {
  const Fd fd = hold("a", "EX ttl=200ms");
  ASSERT_EQ(write_command(fd.get(), "renew=1h"), 0);
  const Fd marker = hold("b", "EX ttl=400ms");  // Lost only after a's first ttl.
  ASSERT_TRUE(eventually_lost(marker));
  EXPECT_EQ(mode_of(fd.get()), "EX");
}

TEST_F(Ttl, RenewWithoutATtlIsEinval) {
  const Fd fd = hold("a", "EX");
  EXPECT_EQ(write_command(fd.get(), "renew"), EINVAL);
  EXPECT_EQ(write_command(fd.get(), "renew=1h"), 0) << "with one, it gets one";
  EXPECT_NE(value("a", "holders.0.expires"), "");
}

TEST_F(Ttl, AConversionWithoutTtlHasNone) {
  const Fd fd = hold("a", "EX ttl=1h");
  ASSERT_EQ(write_command(fd.get(), "PR"), 0);
  EXPECT_EQ(value("a", "holders.0.expires"), "");
}

TEST_F(Ttl, TheTtlBeginsWithTheGrantNotWithTheWait) {
  const Fd holder = hold("a", "EX");
  const Fd fd = open("a");
  auto wait = in_thread([&] { return write_command(fd.get(), "EX ttl=1h"); });
  ASSERT_TRUE(eventually_waiting(1));
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  ASSERT_TRUE(ended(wait));
  EXPECT_NE(value("a", "holders.0.expires"), "");
}

TEST_F(Ttl, AConverterWhoseLockIsLostIsTold) {
  Actor other;
  ASSERT_EQ(other.open(mount_.lock("a")), 0);
  ASSERT_EQ(other.write(0, "PR"), 0);
  const Fd fd = hold("a", "PR ttl=200ms");
  EXPECT_EQ(write_command(fd.get(), "EX"), ESTALE);
  EXPECT_EQ(waiters(), 0U);
  EXPECT_EQ(value("a", "holders_total"), "1");
}

// A process that takes a lock with onlost=USR1 and exits 0 when the signal has come.
int wait_for_onlost(const std::string& path, const std::string& command) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT, 0666));
  if (write_command(fd.get(), command) != 0) return 1;
  const timespec limit{10, 0};
  return sigtimedwait(&set, nullptr, &limit) == SIGUSR1 ? 0 : 2;
}

TEST_F(Ttl, OnlostSendsTheSignalWhenTheTtlRunsOut) {
  const std::string path = mount_.lock("a");
  Child child([&] { return wait_for_onlost(path, "EX ttl=100ms onlost=USR1"); });
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(Ttl, OnlostSendsTheSignalWhenTheLockIsBroken) {
  const std::string path = mount_.lock("a");
  Child child([&] { return wait_for_onlost(path, "PW onlost=SIGUSR1"); });
  ASSERT_TRUE(eventually([&] { return visible("a"); }));
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(Ttl, OnlostOfAReleasedLockSendsNothing) {
  Actor actor;
  ASSERT_EQ(actor.open(mount_.lock("a")), 0);
  ASSERT_EQ(actor.write(0, "EX onlost=KILL"), 0);
  ASSERT_EQ(actor.write(0, "UN"), 0);
  ASSERT_EQ(actor.write(0, "EX ttl=50ms"), 0);
  ASSERT_TRUE(eventually([&] { return !visible("a"); }));
  EXPECT_EQ(actor.write(0, "UN"), 0) << "alive";
}

// Leaves the daemon room for so many descriptors more.
void leave_descriptors(const Mount& mount, size_t room) {
  const size_t used = names_in("/proc/" + std::to_string(mount.daemon()) + "/fd").size();
  const rlimit limit{used + room, used + room};
  ASSERT_EQ(prlimit(mount.daemon(), RLIMIT_NOFILE, &limit, nullptr), 0);
}

TEST_F(Ttl, OnlostOfManyLocksOfAProcessTakesOneDescriptor) {
  leave_descriptors(mount_, 20);
  const std::string path = mount_.lock("a");
  Child child([&] {
    std::vector<Fd> all;
    for (int i = 0; i < 300; ++i) {
      all.emplace_back(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
      if (write_command(all.back().get(), "CR onlost=TERM") != 0) return errno;
    }
    return pause();
  });
  ASSERT_TRUE(eventually([&] { return value("a", "holders_total") == "300"; }));
  EXPECT_EQ(control("break a").second, "300\n");
  EXPECT_EQ(child.wait(), 128 + SIGTERM);
}

bool is_killed(pid_t child) {
  return eventually([&] {
    siginfo_t end{};
    waitid(P_PID, static_cast<id_t>(child), &end, WEXITED | WNOHANG | WNOWAIT);
    return end.si_code == CLD_KILLED;
  });
}

TEST_F(Ttl, OnlostThatCannotBeSentIsRefusedBeforeTheGrant) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizer looks at memory by a pipe, and takes none for a broken object";
  }
  std::vector<std::unique_ptr<Actor>> actors;
  for (int i = 0; i < 30; ++i) actors.push_back(std::make_unique<Actor>());
  leave_descriptors(mount_, 12);
  std::vector<const Actor*> granted;
  for (const auto& actor : actors) {
    ASSERT_EQ(actor->open(mount_.lock("a")), 0);
    const int error = actor->write(0, "CR onlost=KILL");
    if (error == 0) granted.push_back(actor.get());
    EXPECT_TRUE(error == 0 || error == ENOLCK) << error;
  }
  EXPECT_GT(granted.size(), 0U);
  ASSERT_LT(granted.size(), actors.size());
  EXPECT_EQ(value("a", "holders_total"), std::to_string(granted.size()));
  EXPECT_EQ(value("a", "holders.0.exited"), "") << "it cannot be looked at, but is there";
  EXPECT_EQ(actors.back()->write(0, "CR"), 0) << "without onlost= it is granted";
  EXPECT_EQ(control("break a").first, 0);
  for (const Actor* actor : granted) EXPECT_TRUE(is_killed(actor->pid()));
  EXPECT_EQ(actors.back()->write(0, "UN"), 0) << "alive";
  const Fd own = open("a");
  EXPECT_EQ(write_command(own.get(), "CR onlost=TERM"), 0) << "there is room again";
}

// As in a container whose pids the daemon does not see: here it is the daemon that has its own.
TEST(TtlOfAMount, OnlostOfAProcessOutOfSightIsRefused) {
  const Fd outside(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
  if (unshare(CLONE_NEWPID) != 0) GTEST_SKIP() << "no pid namespaces here";
  const Mount mount;
  ASSERT_EQ(setns(outside.get(), CLONE_NEWPID), 0);
  const Fd fd(::open(mount.lock("a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  EXPECT_EQ(write_command(fd.get(), "EX onlost=TERM"), EOPNOTSUPP);
  EXPECT_EQ(mode_of(fd.get()), "none");
  EXPECT_THAT(value_of(fd.get(), "this.error"), ::testing::HasSubstr("pid namespace"));
  EXPECT_EQ(write_command(fd.get(), "EX"), 0);
}

}  // namespace
}  // namespace lockfs::test
