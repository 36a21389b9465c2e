// SPDX-License-Identifier: MIT
// How waits end: signals, kill -9, timeouts, the end of the waiter; and that none takes a grant
// with it.
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

int handled_pipe = -1;

void on_signal(int /*number*/) {
  if (write(handled_pipe, "x", 1) < 0) _exit(99);
}

/// A process that opens the lock, waits for EX in some way and, when it has it, says so on a
/// pipe. Its handler of SIGUSR1 restarts system calls, that of SIGINT does not; both report.
class WaitEnds : public MountTest {
 protected:
  WaitEnds() {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    handled_ = Fd(ends[0]);
    handled_pipe_ = Fd(ends[1]);
    handled_pipe = ends[1];
  }
  std::unique_ptr<Child> waiter(Way way, const std::string& command = "EX") const {
    const std::string path = mount_.lock("a");
    const size_t before = waiters();
    auto child = std::make_unique<Child>([=] {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      // The holder's descriptor must not live on here.
      close_range(3, static_cast<unsigned>(handled_pipe) - 1, 0);
      close_range(static_cast<unsigned>(handled_pipe) + 1, ~0U, 0);
      struct sigaction action {};
      action.sa_handler = on_signal;
      sigaction(SIGINT, &action, nullptr);
      action.sa_flags = SA_RESTART;
      sigaction(SIGUSR1, &action, nullptr);
      const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      return way == Way::kWrite ? write_command(fd, command) : take(way, fd, Want::kExclusive);
    });
    EXPECT_TRUE(eventually_waiting(before + 1));
    return child;
  }
  bool handler_ran() const {
    return eventually([&] {
      char byte = 0;
      return read(handled_.get(), &byte, 1) == 1;
    });
  }

  Fd handled_;
  Fd handled_pipe_;
};

class WaitEndWays : public WaitEnds, public ::testing::WithParamInterface<Way> {};

INSTANTIATE_TEST_SUITE_P(, WaitEndWays, ::testing::ValuesIn(kWays), name_of_case);

TEST_P(WaitEndWays, AHandledSignalEndsItWithEintr) {
  const Fd holder = hold("a", "EX");
  const auto child = waiter(GetParam());
  child->signal(SIGINT);
  EXPECT_EQ(child->wait(), EINTR);
  EXPECT_EQ(waiters(), 0U);
}

TEST_P(WaitEndWays, KillEndsItAtOnce) {
  const Fd holder = hold("a", "EX");
  const auto child = waiter(GetParam());
  const auto begin = std::chrono::steady_clock::now();
  child->signal(SIGKILL);
  EXPECT_EQ(child->wait(), 128 + SIGKILL);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  EXPECT_TRUE(eventually_waiting(0));
  EXPECT_EQ(mode_of(holder.get()), "EX");
}

TEST_P(WaitEndWays, AnUnhandledTermEndsIt) {
  const Fd holder = hold("a", "EX");
  const auto child = waiter(GetParam());
  child->signal(SIGTERM);
  EXPECT_EQ(child->wait(), 128 + SIGTERM);
  EXPECT_TRUE(eventually_waiting(0));
}

TEST_P(WaitEndWays, TheNextInLineGetsTheLockOfAKilledWaiter) {
  const Fd holder = hold("a", "EX");
  const auto first = waiter(GetParam());
  const auto second = waiter(GetParam());
  first->signal(SIGKILL);
  EXPECT_EQ(first->wait(), 128 + SIGKILL);
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  EXPECT_EQ(second->wait(), 0);
}

TEST_P(WaitEndWays, AGrantWhoseWaiterIsKilledAtThatMomentGoesToTheNext) {
  for (int round = 0; round < 60; ++round) {
    Fd holder = hold("a", "EX");
    const auto first = waiter(GetParam());
    const auto second = waiter(GetParam());
    if (round % 2 == 0) first->signal(SIGKILL);
    holder.reset();
    if (round % 2 == 1) first->signal(SIGKILL);
    first->wait();  // Killed, or just granted; its end frees the lock either way.
    ASSERT_EQ(second->wait(), 0) << round;
    ASSERT_TRUE(eventually([&] { return !visible("a"); })) << "nobody is left";
  }
}

TEST_P(WaitEndWays, AGrantWhoseWaiterIsInterruptedAtThatMomentIsHeldOrGone) {
  for (int round = 0; round < 60; ++round) {
    Fd holder = hold("a", "EX");
    const auto first = waiter(GetParam());
    const auto second = waiter(GetParam());
    if (round % 2 == 0) first->signal(SIGINT);
    holder.reset();
    if (round % 2 == 1) first->signal(SIGINT);
    EXPECT_THAT(first->wait(), ::testing::AnyOf(0, EINTR)) << round;
    ASSERT_EQ(second->wait(), 0) << round;
    ASSERT_TRUE(eventually([&] { return !visible("a"); }));
  }
}

TEST_P(WaitEndWays, AWaitThatTheKernelRestartsKeepsItsPlace) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  if (GetParam() == Way::kWrite) GTEST_SKIP() << "write(2) is not restarted, see the next test";
  for (int round = 0; round < 10; ++round) {
    Actor behind;  // Before the holder, so as not to inherit its descriptor.
    Fd holder = hold("a", "EX");
    const auto first = waiter(GetParam());
    ASSERT_EQ(behind.open(mount_.lock("a")), 0);
    behind.begin(GetParam(), 0, Want::kExclusive);
    ASSERT_TRUE(eventually_waiting(2));
    first->signal(SIGUSR1);
    ASSERT_TRUE(handler_ran());
    ASSERT_TRUE(eventually_waiting(2)) << "it is back";
    EXPECT_EQ(value("a", "waiters.0.pid"), std::to_string(first->pid())) << "where it was";
    holder.reset();
    EXPECT_EQ(first->wait(), 0);
    EXPECT_EQ(behind.result(), 0);
    EXPECT_EQ(value("a", "holders.0.pid"), std::to_string(behind.pid()));
  }
}

TEST_P(WaitEndWays, AStoppedWaiterGoesOnWhereItWas) {
  if (GetParam() == Way::kWrite) GTEST_SKIP() << "EINTR reaches the program (facts on FUSE)";
  Fd holder = hold("a", "EX");
  const auto first = waiter(GetParam());
  first->signal(SIGSTOP);
  const std::string stat = "/proc/" + std::to_string(first->pid()) + "/stat";
  ASSERT_TRUE(eventually([&] { return slurp(stat).find(") T ") != std::string::npos; }));
  first->signal(SIGCONT);
  ASSERT_TRUE(eventually_waiting(1));
  holder.reset();
  EXPECT_EQ(first->wait(), 0);
}

TEST_F(WaitEnds, ARestartingHandlerEndsAWaitingWriteWithEintr) {
  const Fd holder = hold("a", "EX");
  const auto child = waiter(Way::kWrite);
  child->signal(SIGUSR1);
  EXPECT_EQ(child->wait(), EINTR);
  EXPECT_TRUE(eventually_waiting(0));
}

TEST_F(WaitEnds, ATimeoutEndsEachWaitAndTheOthersGoOn) {
  Fd holder = hold("a", "EX");
  const auto patient = waiter(Way::kWrite);
  const auto hasty = waiter(Way::kWrite, "EX timeout=100ms");
  EXPECT_EQ(hasty->wait(), ETIMEDOUT);
  EXPECT_EQ(waiters(), 1U);
  holder.reset();
  EXPECT_EQ(patient->wait(), 0);
}

TEST_F(WaitEnds, AnInterruptedConversionLeavesTheOldMode) {
  Actor other;
  ASSERT_EQ(other.open(mount_.lock("a")), 0);
  ASSERT_EQ(other.write(0, "PR"), 0);
  const Fd shared = hold("a", "PR");
  Child child([&] {
    struct sigaction action {};
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, nullptr);
    return write_command(shared.get(), "EX");
  });
  ASSERT_TRUE(eventually_waiting(1));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), EINTR);
  EXPECT_EQ(mode_of(shared.get()), "PR");
  EXPECT_EQ(waiters(), 0U);
}

TEST_F(WaitEnds, AWaiterThatIsGoneLetsThoseBehindItPass) {
  const Fd holder = hold("a", "PR");
  const auto writer = waiter(Way::kWrite, "EX");
  const auto reader = waiter(Way::kWrite, "PR");
  writer->signal(SIGKILL);
  EXPECT_EQ(writer->wait(), 128 + SIGKILL);
  EXPECT_EQ(reader->wait(), 0) << "PR goes with the PR that is held";
}

TEST_F(WaitEnds, AnExecThatClosesALockDoesNotStopTheMount) {
  // The kernel locks a process against onlookers while its exec closes descriptors and waits for
  // our FLUSH; a daemon that looks into its /proc meanwhile waits for ever.
  const std::string path = mount_.lock("a");
  std::vector<std::unique_ptr<Child>> all;
  for (int i = 0; i < 100; ++i) {
    all.push_back(std::make_unique<Child>([&] {
      for (int k = 0; k < 20; ++k) {
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (flock_of(fd, LOCK_SH) != 0) return 1;
      }
      execl("/bin/true", "true", nullptr);
      return 2;
    }));
    if (i % 10 == 9) slurp(path);
  }
  auto reader = in_thread([&] { return slurp(mount_.path() + "/.lockfs/version"); });
  ASSERT_TRUE(ended(reader));
  for (const auto& child : all) EXPECT_EQ(child->wait(), 0);
  EXPECT_TRUE(eventually([&] { return !visible("a"); }));
}

TEST_F(WaitEnds, WaitersEndWhenTheMountEnds) {
  auto mount = std::make_unique<Mount>();
  const std::string path = mount->lock("a");
  const Fd holder(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  ASSERT_EQ(write_command(holder.get(), "EX"), 0);
  Actor waiting;
  ASSERT_EQ(waiting.open(path), 0);
  waiting.begin_flock(0, LOCK_EX);
  ASSERT_TRUE(eventually([&] { return picture_value(slurp(path), "waiters_total") == "1"; }));
  mount.reset();
  const auto result = waiting.result();
  ASSERT_TRUE(result.has_value());
  EXPECT_NE(*result, 0) << "no lock was granted by a mount that is gone";
}

}  // namespace
}  // namespace lockfs::test
