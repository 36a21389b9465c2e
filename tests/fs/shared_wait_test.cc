// SPDX-License-Identifier: MIT
// Processes that share one open file description may wait on it at the same time.
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

class SharedWaits : public MountTest {
 protected:
  SharedWaits() {
    holder_ = std::make_unique<Actor>();
    EXPECT_EQ(holder_->open(mount_.lock("a")), 0);
    EXPECT_EQ(holder_->write(0, "EX"), 0);
    fd_ = open("a");
  }
  /// A process that takes the shared description's lock, in this way.
  std::unique_ptr<Child> waiter(int operation) const {
    auto child = std::make_unique<Child>([this, operation] {
      struct sigaction action {};
      action.sa_handler = [](int) {};
      sigaction(SIGINT, &action, nullptr);
      return flock_of(fd_.get(), operation);
    });
    EXPECT_TRUE(eventually([&] { return sleeps_in(child->pid(), SYS_flock); }));
    EXPECT_TRUE(eventually_waiting(1)) << "one description, one waiter";
    return child;
  }
  void release() const { EXPECT_EQ(holder_->write(0, "UN"), 0); }

  std::unique_ptr<Actor> holder_;
  Fd fd_;
};

TEST_F(SharedWaits, BothAreGranted) {
  const auto one = waiter(LOCK_EX);
  const auto two = waiter(LOCK_EX);
  release();
  EXPECT_EQ(one->wait(), 0);
  EXPECT_EQ(two->wait(), 0);
  EXPECT_EQ(mode_of(fd_.get()), "EX");
  EXPECT_EQ(value("a", "holders_total"), "1");
}

TEST_F(SharedWaits, TheLaterMayWantAnotherMode) {
  const auto one = waiter(LOCK_EX);
  const auto two = waiter(LOCK_SH);
  release();
  EXPECT_EQ(one->wait(), 0);
  EXPECT_EQ(two->wait(), 0);
  EXPECT_EQ(mode_of(fd_.get()), "PR") << "it has converted";
}

TEST_F(SharedWaits, AnInterruptEndsTheFirstAndTheOtherGoesOn) {
  const auto one = waiter(LOCK_EX);
  const auto two = waiter(LOCK_EX);
  one->signal(SIGINT);
  EXPECT_EQ(one->wait(), EINTR);
  EXPECT_TRUE(eventually_waiting(1));
  release();
  EXPECT_EQ(two->wait(), 0);
}

TEST_F(SharedWaits, AnInterruptEndsTheSecondAndTheFirstGoesOn) {
  const auto one = waiter(LOCK_EX);
  const auto two = waiter(LOCK_EX);
  two->signal(SIGINT);
  EXPECT_EQ(two->wait(), EINTR);
  release();
  EXPECT_EQ(one->wait(), 0);
}

TEST_F(SharedWaits, KillOfOneLeavesTheOther) {
  const auto one = waiter(LOCK_EX);
  const auto two = waiter(LOCK_EX);
  const auto three = waiter(LOCK_EX);
  one->signal(SIGKILL);
  EXPECT_EQ(one->wait(), 128 + SIGKILL);
  three->signal(SIGKILL);
  EXPECT_EQ(three->wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually_waiting(1));
  release();
  EXPECT_EQ(two->wait(), 0);
  EXPECT_EQ(mode_of(fd_.get()), "EX");
}

TEST_F(SharedWaits, ANonblockingTryBesideAWaitDoesNotWait) {
  const auto one = waiter(LOCK_EX);
  EXPECT_EQ(flock_of(fd_.get(), LOCK_EX | LOCK_NB), EAGAIN);
  EXPECT_EQ(fcntl_of(fd_.get(), F_OFD_SETLK, F_WRLCK), EAGAIN);
  release();
  EXPECT_EQ(one->wait(), 0);
  EXPECT_EQ(flock_of(fd_.get(), LOCK_EX | LOCK_NB), 0);
}

TEST_F(SharedWaits, FortyWaitAndAllAreGranted) {
  std::vector<std::unique_ptr<Child>> all;
  for (int i = 0; i < 40; ++i) all.push_back(waiter(i % 3 == 0 ? LOCK_SH : LOCK_EX));
  release();
  for (const auto& child : all) EXPECT_EQ(child->wait(), 0);
}

TEST_F(SharedWaits, TwoWritesOnOneDescriptionComeOneAfterTheOther) {
  // The kernel lets one of them in at a time (the file position's lock).
  Child one([this] { return write_command(fd_.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  Child two([this] { return write_command(fd_.get(), "PR"); });
  release();
  EXPECT_EQ(one.wait(), 0);
  EXPECT_EQ(two.wait(), 0);
  EXPECT_EQ(mode_of(fd_.get()), "PR");
}

}  // namespace
}  // namespace lockfs::test
