// SPDX-License-Identifier: MIT
// onlost=SIGNAL: who is signalled when a lock is lost, by the rule of kill(2).
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;

struct Seen {
  std::atomic<int> ready;   ///< The holder has its lock; an errno below 0 if it has not.
  std::atomic<int> signal;  ///< What came.
};

// Waits for a signal, any but those that nobody can wait for; they are blocked meanwhile.
int wait_for_signal(Seen& seen) {
  sigset_t all;
  sigfillset(&all);
  int number = 0;
  while (sigwait(&all, &number) != 0 || number == SIGCHLD) {
  }
  seen.signal = number;
  return 0;
}

int block_signals() {
  sigset_t all;
  sigfillset(&all);
  return sigprocmask(SIG_BLOCK, &all, nullptr);
}

class Signals : public MountTest {
 protected:
  // Takes the lock as `uid`, then becomes what `after` makes of it, then waits for a signal.
  template <typename Before, typename After>
  std::unique_ptr<Child> holder(const std::string& command, Before before, After after) {
    return std::make_unique<Child>([=, this] {
      block_signals();
      if (!before()) return 1;
      const Fd fd(::open(mount_.lock("a").c_str(), O_RDWR | O_CREAT, 0666));
      const int error = write_command(fd.get(), command);
      if (!after()) return 2;
      seen_->ready = error == 0 ? 1 : -error;
      return wait_for_signal(*seen_);
    });
  }
  bool ready() const {
    return eventually([&] { return seen_->ready != 0; }) && seen_->ready == 1;
  }

  Shared<Seen> seen_;
};

TEST_F(Signals, AHolderGetsTheSignalItAskedFor) {
  const auto ann = holder(
      "EX onlost=USR2", [] { return become(kAnn); }, [] { return true; });
  ASSERT_TRUE(ready());
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_TRUE(eventually([&] { return seen_->signal == SIGUSR2; }));
}

TEST_F(Signals, AHolderGetsItWhenItsTtlRunsOut) {
  const auto ann = holder(
      "EX ttl=1ms onlost=SIGTERM", [] { return become(kAnn); }, [] { return true; });
  EXPECT_TRUE(eventually([&] { return seen_->signal == SIGTERM; }));
}

TEST_F(Signals, NoneIsSentToOneThatBecameAnotherUser) {
  // As a set-user-ID program does: Ann's process asked, Ben's would be hit.
  const auto changed = holder(
      "EX onlost=KILL",
      [] { return setresgid(kAnn, kAnn, 0) == 0 && setresuid(kAnn, kAnn, 0) == 0; },
      [] { return setresuid(0, 0, 0) == 0 && become(kBen); });
  ASSERT_TRUE(ready());
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_TRUE(eventually([&] {
    const std::string log = mount_.log();
    return log.find("onlost") != std::string::npos && log.find("uid 12345") != std::string::npos;
  })) << mount_.log();
  EXPECT_EQ(kill(changed->pid(), 0), 0);
  EXPECT_EQ(seen_->signal.load(), 0);
  changed->signal(SIGUSR1);
  EXPECT_EQ(changed->wait(), 0) << "it lived on";
  EXPECT_EQ(seen_->signal.load(), SIGUSR1) << "and nothing came before";
}

TEST_F(Signals, NoneIsSentForAnEffectiveUserAlone) {
  // kill(2) asks for the target's real or saved user: root that acts as Ann is not Ann's to kill.
  const auto acting = holder(
      "EX onlost=KILL", [] { return setresuid(0, kAnn, 0) == 0; }, [] { return true; });
  ASSERT_TRUE(ready());
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_TRUE(eventually([&] { return mount_.log().find("onlost") != std::string::npos; }))
      << mount_.log();
  acting->signal(SIGUSR1);
  EXPECT_EQ(acting->wait(), 0);
}

TEST_F(Signals, TheOneWhoWroteIsSignalledNotWhoHoldsTheDescriptor) {
  const Fd shared = open("a");
  Child ben([&] {
    block_signals();
    if (!become(kBen)) return 1;
    seen_->ready = write_command(shared.get(), "EX onlost=USR1") == 0 ? 1 : -errno;
    return wait_for_signal(*seen_);
  });
  ASSERT_TRUE(ready());
  EXPECT_EQ(control("break a").first, 0);
  EXPECT_EQ(ben.wait(), 0);
  EXPECT_EQ(seen_->signal.load(), SIGUSR1);
}

}  // namespace
}  // namespace lockfs::test
