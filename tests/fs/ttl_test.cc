// SPDX-License-Identifier: MIT
// `ttl`, `renew`, `onlost`: locks that end by themselves, and what their owners are told.
#include <signal.h>
#include <sys/file.h>
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

}  // namespace
}  // namespace lockfs::test
