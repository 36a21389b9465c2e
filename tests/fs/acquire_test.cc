// SPDX-License-Identifier: MIT
// The ways to acquire, what is visible meanwhile, and what falls with the last close.
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

constexpr int kExclusiveCreate = O_RDWR | O_CREAT | O_EXCL;

using Acquire = MountTest;

TEST_F(Acquire, ExclusiveCreateTakesEx) {
  const Fd fd = open("a", kExclusiveCreate);
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(mode_of(fd.get()), "EX");
  EXPECT_EQ(value("a", "mode"), "EX");
  EXPECT_EQ(value("a", "holders_total"), "1");
}

TEST_F(Acquire, ExclusiveCreateOfAHeldLockFailsWithEexist) {
  for (const std::string mode : {"CR", "CW", "PR", "PW", "EX"}) {
    const Fd holder = hold("a", mode);
    EXPECT_EQ(open_error("a", kExclusiveCreate), EEXIST) << mode;
  }
}

TEST_F(Acquire, ExclusiveCreateSucceedsWhileOnlyNullIsHeld) {
  const Fd null = hold("a", "NL");
  const Fd fd = open("a", kExclusiveCreate);
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(mode_of(fd.get()), "EX");
}

TEST_F(Acquire, ExclusiveCreateIsFreeAtOnceAfterClose) {
  for (int i = 0; i < 2000; ++i) {
    const Fd fd = open("a", kExclusiveCreate);
    ASSERT_TRUE(fd.valid()) << "cycle " << i << " errno " << errno;
  }
  EXPECT_FALSE(visible("a"));
}

TEST_F(Acquire, AThousandLocksClosedAtOnceAreFreeAtOnce) {
  for (int round = 0; round < 5; ++round) {
    std::vector<Fd> all;
    for (int i = 0; i < 1000; ++i) {
      const Fd low = open(std::to_string(i), kExclusiveCreate);
      all.emplace_back(fcntl(low.get(), F_DUPFD_CLOEXEC, 5000));  // One range, whatever is open.
    }
    const auto last = static_cast<unsigned>(all.back().get());
    const auto first = static_cast<unsigned>(all.front().get());
    ASSERT_EQ(last - first, 999U);
    ASSERT_EQ(close_range(first, last, 0), 0);
    for (Fd& fd : all) fd.release();
    const Fd again = open("0", kExclusiveCreate);
    EXPECT_TRUE(again.valid()) << "errno " << errno;
    const Fd highest = open("999", kExclusiveCreate);
    EXPECT_TRUE(highest.valid()) << "errno " << errno;
  }
}

TEST_F(Acquire, OpeningWithoutExclNeverAcquires) {
  const Fd keeper = hold("a", "NL");
  for (const int flags :
       {O_RDONLY | O_CREAT, O_WRONLY | O_CREAT, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_TRUNC,
        O_RDWR | O_CREAT | O_APPEND, O_RDWR | O_CREAT | O_NONBLOCK, O_RDWR | O_CREAT | O_SYNC}) {
    const Fd fd = open("a", flags);
    ASSERT_TRUE(fd.valid()) << flags << " errno " << errno;
    EXPECT_EQ(mode_of(fd.get()), "none") << flags;
    EXPECT_FALSE(visible("a")) << flags;
  }
}

TEST_F(Acquire, OpeningAHeldLockWithoutExclNeverWaitsNorAcquires) {
  const Fd holder = hold("a", "EX");
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_CREAT, O_RDWR | O_TRUNC,
                          O_RDWR | O_EXCL, O_RDWR | O_NONBLOCK}) {
    const Fd fd = open("a", flags);
    ASSERT_TRUE(fd.valid()) << flags << " errno " << errno;
    EXPECT_EQ(mode_of(fd.get()), "none") << flags;
  }
  EXPECT_EQ(value("a", "holders_total"), "1");
  EXPECT_EQ(mode_of(holder.get()), "EX");
}

TEST_F(Acquire, AFreeLockIsNotThere) {
  EXPECT_EQ(open_error("a", O_RDONLY), ENOENT);
  EXPECT_EQ(open_error("a", O_RDWR), ENOENT);
  EXPECT_FALSE(visible("a"));
  const Fd fd = open("a");
  EXPECT_FALSE(visible("a"));
}

TEST_F(Acquire, ANameIsVisibleExactlyWhileHeldInAModeAboveNull) {
  const Fd fd = open("a");
  const std::string space = mount_.path() + "/default";
  const std::vector<std::string> only_control = {".ctl"};
  const std::vector<std::string> with_lock = {".ctl", "a"};
  for (const std::string mode : {"CR", "CW", "PR", "PW", "EX", "SLOT size=2"}) {
    ASSERT_EQ(write_command(fd.get(), mode), 0);
    EXPECT_TRUE(visible("a")) << mode;
    EXPECT_EQ(names_in(space), with_lock) << mode;
    ASSERT_EQ(write_command(fd.get(), mode == "PW" ? "NL" : "UN"), 0);
    EXPECT_FALSE(visible("a")) << mode;
    EXPECT_EQ(names_in(space), only_control) << mode;
  }
}

TEST_F(Acquire, ANameIsVisibleExactlyWhileHeldInEachWay) {
  const Fd fd = open("a");
  for (const Way way : kWays) {
    for (const Want want : {Want::kShared, Want::kExclusive}) {
      EXPECT_EQ(take(way, fd.get(), want), 0) << name_of(way);
      EXPECT_EQ(value("a", "mode"), want == Want::kShared ? "PR" : "EX") << name_of(way);
      EXPECT_EQ(take(way, fd.get(), Want::kNothing), 0) << name_of(way);
      EXPECT_FALSE(visible("a")) << name_of(way);
    }
  }
}

TEST_F(Acquire, EachWayExcludesEachOtherWay) {
  Actor holder;
  ASSERT_EQ(holder.open(mount_.lock("a")), 0);
  const Fd fd = open("a");
  for (const Way way : kWays) {
    ASSERT_EQ(holder.lock(way, 0, Want::kExclusive), 0) << name_of(way);
    EXPECT_EQ(open_error("a", kExclusiveCreate), EEXIST) << name_of(way);
    EXPECT_EQ(write_command(fd.get(), "CR try"), EAGAIN) << name_of(way);
    EXPECT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), EAGAIN) << name_of(way);
    EXPECT_EQ(fcntl_of(fd.get(), F_SETLK, F_RDLCK), EAGAIN) << name_of(way);
    EXPECT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_RDLCK), EAGAIN) << name_of(way);
    ASSERT_EQ(holder.lock(way, 0, Want::kShared), 0) << name_of(way);
    EXPECT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), 0) << name_of(way);
    EXPECT_EQ(flock_of(fd.get(), LOCK_UN), 0);
    ASSERT_EQ(holder.lock(way, 0, Want::kNothing), 0) << name_of(way);
  }
}

TEST_F(Acquire, ALockFallsWithTheLastCloseOfItsDescription) {
  for (const std::string mode : {"PR", "EX"}) {
    Fd fd = hold("a", mode);
    Fd copy(dup(fd.get()));
    fd.reset();
    EXPECT_TRUE(visible("a")) << "a dup still has it";
    copy.reset();
    EXPECT_FALSE(visible("a"));
  }
}

TEST_F(Acquire, ALockOutlivesItsTakerInAForkedChild) {
  Actor actor;
  ASSERT_EQ(actor.open(mount_.lock("a"), kExclusiveCreate), 0);
  ASSERT_EQ(actor.fork(), 0);
  ASSERT_EQ(actor.close(0), 0);
  EXPECT_EQ(open_error("a", kExclusiveCreate), EEXIST);
  ASSERT_EQ(actor.fork_ends(), 0);
  EXPECT_TRUE(eventually([&] { return open_error("a", kExclusiveCreate) == 0; }));
}

TEST_F(Acquire, KillOfTheHolderFreesItsLocksInEachWay) {
  for (const Way way : kWays) {
    Actor holder;
    ASSERT_EQ(holder.open(mount_.lock("a")), 0);
    ASSERT_EQ(holder.lock(way, 0, Want::kExclusive), 0);
    ASSERT_TRUE(visible("a")) << name_of(way);
    holder.signal(SIGKILL);
    EXPECT_TRUE(eventually([&] { return !visible("a"); })) << name_of(way);
  }
}

TEST_F(Acquire, TheHolderOfEachWayIsNamed) {
  for (const Way way : kWays) {
    Actor holder;
    ASSERT_EQ(holder.open(mount_.lock("a")), 0);
    ASSERT_EQ(holder.lock(way, 0, Want::kShared), 0);
    EXPECT_EQ(value("a", "holders.0.pid"), std::to_string(holder.pid())) << name_of(way);
    EXPECT_EQ(value("a", "holders.0.mode"), "PR") << name_of(way);
    EXPECT_EQ(value("a", "holders.0.comm"), "fs_tests") << name_of(way);
    EXPECT_EQ(value("a", "holders.0.uid"), "0") << name_of(way);
  }
}

TEST_F(Acquire, LocksOfTheSameNameInTwoLockspacesAreTwoLocks) {
  ASSERT_EQ(mkdir((mount_.path() + "/other").c_str(), 0777), 0);
  const Fd here = hold("a", "EX");
  const Fd there = hold("other/a", "EX");
  EXPECT_EQ(value("a", "lockspace"), "default");
  EXPECT_EQ(value("other/a", "lockspace"), "other");
}

TEST_F(Acquire, TokensGrowWithEachExclusiveGrantInEveryWay) {
  uint64_t last = 0;
  const auto grown = [&](int fd) {
    const uint64_t token = std::stoull(xattr_of(fd, "user.lockfs.token"));
    const bool more = token > last;
    last = token;
    return more;
  };
  for (int i = 0; i < 3; ++i) {
    Fd created = open("a", kExclusiveCreate);
    ASSERT_TRUE(created.valid());
    EXPECT_TRUE(grown(created.get()));
    created.reset();
    const Fd fd = open("a");
    for (const std::string mode : {"PW", "EX"}) {
      ASSERT_EQ(write_command(fd.get(), mode), 0);
      EXPECT_TRUE(grown(fd.get())) << mode;
      ASSERT_EQ(write_command(fd.get(), "UN"), 0);
    }
    ASSERT_EQ(flock_of(fd.get(), LOCK_EX), 0);
    EXPECT_TRUE(grown(fd.get()));
    ASSERT_EQ(flock_of(fd.get(), LOCK_UN), 0);
  }
}

}  // namespace
}  // namespace lockfs::test
