// SPDX-License-Identifier: MIT
// poll(2): a change of the picture, somebody who waits, the loss of the lock.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <unistd.h>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

constexpr short kAll = POLLIN | POLLPRI | POLLOUT;

class Polls : public MountTest {
 protected:
  /// What poll(2) says at once.
  static int now(const Fd& fd) { return within(fd, kAll, 0); }
  static int within(const Fd& fd, short events, int milliseconds) {
    pollfd ask{fd.get(), events, 0};
    return poll(&ask, 1, milliseconds) == 1 ? ask.revents : 0;
  }
  static bool eventually_says(const Fd& fd, int events) {
    return eventually([&] { return (now(fd) & events) == events; });
  }
};

TEST_F(Polls, ReadableUntilThePictureIsReadAndAgainWhenItChanged) {
  const Fd fd = open("a");
  EXPECT_NE(now(fd) & POLLIN, 0) << "never read";
  picture_of(fd.get());
  EXPECT_EQ(now(fd) & POLLIN, 0);
  const Fd holder = hold("a", "EX");
  EXPECT_NE(now(fd) & POLLIN, 0);
  picture_of(fd.get());
  EXPECT_EQ(now(fd) & POLLIN, 0);
  EXPECT_EQ(write_command(holder.get(), "PR"), 0);
  EXPECT_NE(now(fd) & POLLIN, 0) << "a conversion is a change";
}

TEST_F(Polls, AChangeWakesOneThatSleepsInPoll) {
  const Fd fd = open("a");
  Fd holder = open("a");
  picture_of(fd.get());
  auto sleeper = in_thread([&] { return within(fd, POLLIN, 10000); });
  EXPECT_FALSE(ended(sleeper, 0.05)) << "nothing has changed";
  ASSERT_EQ(write_command(holder.get(), "EX"), 0);
  ASSERT_TRUE(ended(sleeper, 5));
  EXPECT_NE(sleeper.get() & POLLIN, 0);
  picture_of(fd.get());
  auto again = in_thread([&] { return within(fd, POLLIN, 10000); });
  EXPECT_FALSE(ended(again, 0.05));
  holder.reset();
  ASSERT_TRUE(ended(again, 5)) << "a close is a change";
  EXPECT_NE(again.get() & POLLIN, 0);
}

TEST_F(Polls, EveryWatcherIsWoken) {
  std::vector<Fd> watchers;
  std::vector<std::future<int>> sleepers;
  for (int i = 0; i < 8; ++i) watchers.push_back(open("a"));
  for (const Fd& fd : watchers) picture_of(fd.get());
  for (const Fd& fd : watchers) {
    sleepers.push_back(in_thread([&fd] { return within(fd, POLLIN, 10000); }));
  }
  EXPECT_FALSE(ended(sleepers.front(), 0.05));
  const Fd holder = hold("a", "EX");
  for (auto& sleeper : sleepers) {
    ASSERT_TRUE(ended(sleeper, 5));
    EXPECT_NE(sleeper.get() & POLLIN, 0);
  }
}

TEST_F(Polls, PriWhenSomebodyWaitsForWhatIsHeld) {
  const Fd holder = hold("a", "EX");
  const Fd stranger = open("a");
  EXPECT_EQ(now(holder) & POLLPRI, 0);
  auto sleeper = in_thread([&] { return within(holder, POLLPRI, 10000); });
  EXPECT_FALSE(ended(sleeper, 0.05));
  const Fd waiter = open("a");
  auto wait = in_thread([&] { return write_command(waiter.get(), "PR"); });
  ASSERT_TRUE(ended(sleeper, 5));
  EXPECT_NE(sleeper.get() & POLLPRI, 0);
  EXPECT_NE(now(holder) & POLLPRI, 0);
  EXPECT_EQ(now(stranger) & POLLPRI, 0) << "it holds nothing";
  EXPECT_EQ(now(waiter) & POLLPRI, 0);
  ASSERT_EQ(write_command(holder.get(), "PR"), 0);
  ASSERT_TRUE(ended(wait));
  EXPECT_EQ(now(holder) & POLLPRI, 0) << "nobody waits any more";
}

TEST_F(Polls, PriForHoldersInEachWay) {
  for (const Way way : kWays) {
    Actor waiter;
    ASSERT_EQ(waiter.open(mount_.lock("a")), 0);
    const Fd holder = open("a");
    ASSERT_EQ(take(way, holder.get(), Want::kExclusive), 0);
    EXPECT_EQ(now(holder) & POLLPRI, 0) << name_of(way);
    waiter.begin_flock(0, LOCK_EX);
    ASSERT_TRUE(eventually_waiting(1));
    EXPECT_NE(now(holder) & POLLPRI, 0) << name_of(way);
    ASSERT_EQ(take(way, holder.get(), Want::kNothing), 0);
    EXPECT_EQ(waiter.result(), 0);
  }
}

TEST_F(Polls, ErrAndHupWhenTheLockIsLost) {
  const Fd holder = hold("a", "EX ttl=200ms");
  const int lost = within(holder, 0, 10000);
  EXPECT_NE(lost & POLLERR, 0);
  EXPECT_NE(lost & POLLHUP, 0);
  EXPECT_NE(now(holder) & (POLLERR | POLLHUP), 0) << "until UN";
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  EXPECT_EQ(now(holder) & (POLLERR | POLLHUP), 0);
}

TEST_F(Polls, ABreakWakesTheHolderInPoll) {
  const Fd holder = hold("a", "PR");
  picture_of(holder.get());
  auto sleeper = in_thread([&] { return within(holder, 0, 10000); });
  EXPECT_FALSE(ended(sleeper, 0.05));
  ASSERT_EQ(control("break a").first, 0);
  ASSERT_TRUE(ended(sleeper, 5));
  EXPECT_NE(sleeper.get() & POLLHUP, 0);
}

TEST_F(Polls, EpollReportsEachChangeOnce) {
  const Fd fd = open("a");
  picture_of(fd.get());
  const Fd set(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(epoll_ctl(set.get(), EPOLL_CTL_ADD, fd.get(), &event), 0);
  epoll_wait(set.get(), &event, 1, 0);
  const Fd holder = open("a");
  for (const std::string mode : {"EX", "PR", "CR", "UN"}) {
    ASSERT_EQ(write_command(holder.get(), mode), 0);
    EXPECT_EQ(epoll_wait(set.get(), &event, 1, 5000), 1) << mode;
    EXPECT_NE(event.events & EPOLLIN, 0U) << mode;
    picture_of(fd.get());
    while (epoll_wait(set.get(), &event, 1, 0) == 1) {
    }
  }
}

TEST_F(Polls, ControlFilesAreAlwaysReady) {
  const Fd fd(::open((mount_.path() + "/default/.ctl").c_str(), O_RDWR));
  EXPECT_EQ(now(fd) & (POLLIN | POLLOUT), POLLIN | POLLOUT);
}

}  // namespace
}  // namespace lockfs::test
