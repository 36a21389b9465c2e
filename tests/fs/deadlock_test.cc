// SPDX-License-Identifier: MIT
// Deadlocks across locks: the last to close a cycle of single-threaded processes gets EDEADLK at
// once; where a way out may exist, nobody does, and `.lockfs/waits` tells.
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

/// "At once": no wait that a person would notice, on a busy machine too.
constexpr double kAtOnce = 3;

class Deadlocks : public MountTest {
 protected:
  using Actors = std::vector<std::unique_ptr<Actor>>;

  /// `count` processes that all have the locks l0 ... open as their files 0 ...
  Actors actors(size_t count, size_t locks) const {
    Actors all;
    for (size_t i = 0; i < count; ++i) {
      all.push_back(std::make_unique<Actor>());
      for (size_t k = 0; k < locks; ++k) {
        EXPECT_EQ(all.back()->open(mount_.lock("l" + std::to_string(k))), 0);
      }
    }
    return all;
  }
  YAML::Node waits() const { return YAML::Load(slurp(mount_.path() + "/.lockfs/waits"))["waits"]; }
};

class DeadlockWays : public Deadlocks, public ::testing::WithParamInterface<Way> {};

INSTANTIATE_TEST_SUITE_P(, DeadlockWays, ::testing::ValuesIn(kWays), name_of_case);

TEST_P(DeadlockWays, TheLaterOfTwoThatWaitForEachOtherGetsEdeadlk) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  auto all = actors(2, 2);
  Actor& a = *all[0];
  Actor& b = *all[1];
  ASSERT_EQ(a.lock(GetParam(), 0, Want::kExclusive), 0);
  ASSERT_EQ(b.lock(GetParam(), 1, Want::kExclusive), 0);
  a.begin(GetParam(), 1, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(1));
  b.begin(GetParam(), 0, Want::kExclusive);
  EXPECT_EQ(b.result(kAtOnce), EDEADLK);
  EXPECT_EQ(a.result(0), std::nullopt) << "the earlier one still waits";
  EXPECT_EQ(value("l1", "holders.0.pid"), std::to_string(b.pid())) << "what it held it holds";
  EXPECT_EQ(value("l0", "stats.deadlocks"), "1");
  ASSERT_EQ(b.lock(GetParam(), 1, Want::kNothing), 0);
  EXPECT_EQ(a.result(), 0);
  ASSERT_EQ(a.lock(GetParam(), 0, Want::kNothing), 0);
  EXPECT_EQ(b.lock(GetParam(), 0, Want::kExclusive), 0) << "nothing is left of it";
}

TEST_P(DeadlockWays, SharedAgainstExclusiveIsADeadlockToo) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  auto all = actors(2, 2);
  ASSERT_EQ(all[0]->lock(GetParam(), 0, Want::kShared), 0);
  ASSERT_EQ(all[1]->lock(GetParam(), 1, Want::kShared), 0);
  all[0]->begin(GetParam(), 1, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(1));
  all[1]->begin(GetParam(), 0, Want::kExclusive);
  EXPECT_EQ(all[1]->result(kAtOnce), EDEADLK);
}

TEST_P(DeadlockWays, CyclesOfThreeAndEightEndInOneEdeadlk) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  for (const size_t length : {size_t{3}, size_t{8}}) {
    auto all = actors(length, length);
    for (size_t i = 0; i < length; ++i) {
      ASSERT_EQ(all[i]->lock(GetParam(), static_cast<int>(i), Want::kExclusive), 0);
    }
    for (size_t i = 0; i + 1 < length; ++i) {
      all[i]->begin(GetParam(), static_cast<int>(i + 1), Want::kExclusive);
      ASSERT_TRUE(eventually_waiting(i + 1));
    }
    all.back()->begin(GetParam(), 0, Want::kExclusive);
    EXPECT_EQ(all.back()->result(kAtOnce), EDEADLK) << length;
    EXPECT_EQ(waiters(), length - 1);
    // Released from the end, each hands on to the one before.
    for (size_t i = length; i-- > 1;) {
      ASSERT_EQ(all[i]->lock(GetParam(), static_cast<int>(i), Want::kNothing), 0) << i;
      ASSERT_EQ(all[i - 1]->result(), 0) << i;
      if (i + 1 < length) {
        ASSERT_EQ(all[i]->lock(GetParam(), static_cast<int>(i + 1), Want::kNothing), 0);
      }
    }
  }
}

TEST_P(DeadlockWays, AChainWithoutACycleIsNoDeadlock) {
  auto all = actors(4, 4);
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(all[size_t(i)]->lock(GetParam(), i, Want::kExclusive), 0);
  }
  for (size_t i = 0; i < 3; ++i) {
    all[i]->begin(GetParam(), static_cast<int>(i) + 1, Want::kExclusive);
    ASSERT_TRUE(eventually_waiting(i + 1));
  }
  for (const auto& wait : waits()) EXPECT_FALSE(wait["cycle"].as<bool>());
  ASSERT_EQ(all[3]->lock(GetParam(), 3, Want::kNothing), 0);
  EXPECT_EQ(all[2]->result(), 0);
}

TEST_P(DeadlockWays, AProcessThatWaitsForItselfThroughASecondOpenGetsEdeadlk) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  Actor actor;
  ASSERT_EQ(actor.open(mount_.lock("l0")), 0);
  ASSERT_EQ(actor.open(mount_.lock("l0")), 0);
  ASSERT_EQ(actor.lock(GetParam(), 0, Want::kExclusive), 0);
  actor.begin(GetParam(), 1, Want::kExclusive);
  // A POSIX lock is the process's, whichever descriptor it comes through.
  EXPECT_EQ(actor.result(kAtOnce), GetParam() == Way::kPosix ? 0 : EDEADLK);
}

TEST_P(DeadlockWays, WithAMultiThreadedProcessInTheCycleNobodyIsToldButWaitsShowsIt) {
  auto all = actors(2, 2);
  ASSERT_EQ(all[0]->add_thread(), 0);
  ASSERT_EQ(all[0]->lock(GetParam(), 0, Want::kExclusive), 0);
  ASSERT_EQ(all[1]->lock(GetParam(), 1, Want::kExclusive), 0);
  all[0]->begin(GetParam(), 1, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(1));
  all[1]->begin(GetParam(), 0, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(2)) << "it waits: the other thread may release";
  EXPECT_EQ(all[1]->result(0.05), std::nullopt);
  const YAML::Node rows = waits();
  ASSERT_EQ(rows.size(), 2U);
  for (const auto& row : rows) {
    EXPECT_TRUE(row["cycle"].as<bool>()) << row["pid"];
    EXPECT_EQ(row["waits_for"].size(), 1U);
  }
}

TEST_P(DeadlockWays, TheLastToWaitMayBeTheMultiThreadedOne) {
  auto all = actors(2, 2);
  ASSERT_EQ(all[1]->add_thread(), 0);
  ASSERT_EQ(all[0]->lock(GetParam(), 0, Want::kExclusive), 0);
  ASSERT_EQ(all[1]->lock(GetParam(), 1, Want::kExclusive), 0);
  all[0]->begin(GetParam(), 1, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(1));
  all[1]->begin(GetParam(), 0, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(2));
  for (const auto& row : waits()) EXPECT_TRUE(row["cycle"].as<bool>());
}

TEST_P(DeadlockWays, NoFalseAlarmWhenAChildHasTheDescriptorThatTheHolderClosed) {
  if (GetParam() == Way::kPosix) GTEST_SKIP() << "a child does not inherit POSIX locks";
  auto all = actors(2, 2);
  Actor& a = *all[0];
  Actor& b = *all[1];
  ASSERT_EQ(a.lock(GetParam(), 0, Want::kExclusive), 0);
  ASSERT_EQ(a.fork(), 0);
  ASSERT_EQ(a.close(0), 0);
  ASSERT_EQ(b.lock(GetParam(), 1, Want::kExclusive), 0);
  a.begin(GetParam(), 1, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(1));
  b.begin(GetParam(), 0, Want::kExclusive);
  ASSERT_TRUE(eventually_waiting(2)) << "a's child may end, so b waits";
  EXPECT_EQ(b.result(0.05), std::nullopt);
  ASSERT_EQ(a.result(0), std::nullopt);
}

TEST_F(Deadlocks, TheWaysMayBeMixed) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  for (const Way first : kWays) {
    for (const Way second : kWays) {
      auto all = actors(2, 2);
      ASSERT_EQ(all[0]->lock(first, 0, Want::kExclusive), 0);
      ASSERT_EQ(all[1]->lock(second, 1, Want::kExclusive), 0);
      all[0]->begin(second, 1, Want::kShared);
      ASSERT_TRUE(eventually_waiting(1));
      all[1]->begin(first, 0, Want::kShared);
      EXPECT_EQ(all[1]->result(kAtOnce), EDEADLK) << name_of(first) << " " << name_of(second);
    }
  }
}

TEST_F(Deadlocks, ALockTakenByExclusiveCreateMayBePartOfACycle) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  Actor a;
  Actor b;
  ASSERT_EQ(a.open(mount_.lock("l0"), O_RDWR | O_CREAT | O_EXCL), 0);
  ASSERT_EQ(b.open(mount_.lock("l1"), O_RDWR | O_CREAT | O_EXCL), 0);
  ASSERT_EQ(a.open(mount_.lock("l1")), 0);
  ASSERT_EQ(b.open(mount_.lock("l0")), 0);
  a.begin_flock(1, LOCK_EX);
  ASSERT_TRUE(eventually_waiting(1));
  b.begin_write(1, "PR");
  EXPECT_EQ(b.result(kAtOnce), EDEADLK);
}

TEST_F(Deadlocks, OneThatWaitsBehindAWaiterWaitsForItToo) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  // a holds l0 in PR; b holds l1 and waits for EX on l0; c, which a waits for, queues behind b.
  auto all = actors(3, 3);
  ASSERT_EQ(all[0]->write(0, "PR"), 0);
  ASSERT_EQ(all[1]->write(1, "EX"), 0);
  ASSERT_EQ(all[2]->write(2, "EX"), 0);
  all[1]->begin_write(0, "EX");
  ASSERT_TRUE(eventually_waiting(1));
  all[0]->begin_write(2, "EX");
  ASSERT_TRUE(eventually_waiting(2));
  all[2]->begin_write(0, "PR");
  EXPECT_EQ(all[2]->result(kAtOnce), EDEADLK) << "PR goes with PR, but not past the EX";
}

TEST_F(Deadlocks, ATimeoutOrATryInACycleNeedsNoEdeadlk) {
  auto all = actors(2, 2);
  ASSERT_EQ(all[0]->write(0, "EX"), 0);
  ASSERT_EQ(all[1]->write(1, "EX"), 0);
  all[0]->begin_write(1, "EX");
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(all[1]->write(0, "EX try"), EAGAIN);
  EXPECT_EQ(all[1]->flock(0, LOCK_EX | LOCK_NB), EAGAIN);
}

TEST_F(Deadlocks, TheRefusedOneReadsWhyInWords) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  Actor other;
  ASSERT_EQ(other.open(mount_.lock("l0")), 0);
  ASSERT_EQ(other.open(mount_.lock("l1")), 0);
  ASSERT_EQ(other.write(0, "EX"), 0);
  const Fd mine = hold("l1", "EX");
  other.begin_write(1, "EX");
  ASSERT_TRUE(eventually_waiting(1));
  const Fd wanted = open("l0");
  EXPECT_EQ(write_command(wanted.get(), "EX"), EDEADLK) << "this process has one thread";
  EXPECT_THAT(value_of(wanted.get(), "this.error"), ::testing::HasSubstr("deadlock"));
  EXPECT_THAT(value_of(wanted.get(), "this.error"),
              ::testing::HasSubstr(std::to_string(other.pid())));
}

TEST_F(Deadlocks, ALockThatIsInheritedByAForkedChildAndHeldByBothIsNoCycleForTheChild) {
  // The parent took it; its child, which shares the description, waits for what the parent's
  // partner holds. The parent is free to release, so nobody is deadlocked.
  Actor parent;
  Actor partner;
  ASSERT_EQ(parent.open(mount_.lock("l0")), 0);
  ASSERT_EQ(parent.write(0, "EX"), 0);
  ASSERT_EQ(parent.fork(), 0);
  ASSERT_EQ(partner.open(mount_.lock("l0")), 0);
  partner.begin_write(0, "EX");
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(partner.result(0.05), std::nullopt);
  ASSERT_EQ(parent.write(0, "UN"), 0);
  EXPECT_EQ(partner.result(), 0);
}

TEST_F(Deadlocks, AProcessThatHasTheLockOpenAThousandTimesIsAnsweredAtOnce) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  std::vector<Fd> all;
  for (int i = 0; i < 1000; ++i) all.push_back(open("a"));
  ASSERT_EQ(write_command(all[500].get(), "EX"), 0);
  const auto answer = [&] {
    const auto before = std::chrono::steady_clock::now();
    EXPECT_EQ(write_command(all[700].get(), "EX"), EDEADLK);
    return std::chrono::steady_clock::now() - before;
  };
  // The best of some, for other processes of a busy machine take their time as well.
  auto best = answer();
  for (int i = 0; i < 4; ++i) best = std::min(best, answer());
  EXPECT_LT(best, std::chrono::milliseconds(50));
}

class DeadlocksAndEpoll : public Deadlocks {
 protected:
  using Clock = std::chrono::steady_clock;

  /// Asks an epoll descriptor that it shares with a child, which has this mount to ask meanwhile,
  /// and asks for a lock that it holds itself. Ends by itself, unless the mount hangs.
  int prefork() const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Fd watched = open("watched");
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{EPOLLIN, {}};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, watched.get(), &event) != 0) return 1;
    const Clock::time_point end = Clock::now() + std::chrono::seconds(2);
    const Child child([&] {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (Clock::now() < end && epoll_wait(epoll.get(), &event, 1, 0) == 1) {
      }
      return 0;
    });
    const Fd held = open("a");
    const Fd wanted = open("a");
    if (write_command(held.get(), "EX") != 0) return 2;
    while (Clock::now() < end) write_command(wanted.get(), "EX timeout=0ms");
    return 0;
  }
};

TEST_F(DeadlocksAndEpoll, ASearchDoesNotAskAnEpollDescriptorThatAsksTheMount) {
  Child parent([this] { return prefork(); });
  auto end = in_thread([&] { return parent.wait(); });
  const bool in_time = ended(end);
  // What hangs is uninterruptible, the daemon too: only the end of the mount ends it.
  if (!in_time) umount2(mount_.path().c_str(), MNT_FORCE);
  EXPECT_EQ(end.get(), 0);
  EXPECT_TRUE(in_time) << "the daemon waited for one that waits for it";
}

}  // namespace
}  // namespace lockfs::test
