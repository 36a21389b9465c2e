// SPDX-License-Identifier: MIT
// fcntl(2) locks: POSIX and OFD, on the whole file.
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using Fcntl = MountTest;

struct flock asked(int fd, int command, int type) {
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  EXPECT_EQ(fcntl(fd, command, &lock), 0);
  return lock;
}

TEST_F(Fcntl, AByteRangeIsRefusedWithEopnotsupp) {
  const Fd fd = open("a");
  for (const int command : {F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, F_GETLK, F_OFD_GETLK}) {
    for (const auto& [start, length] : {std::pair<off_t, off_t>{0, 1}, {0, 4096}, {1, 0}, {8, 8}}) {
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = start;
      lock.l_len = length;
      EXPECT_EQ(fcntl(fd.get(), command, &lock), -1) << command << " " << start << "+" << length;
      EXPECT_EQ(errno, EOPNOTSUPP) << command << " " << start << "+" << length;
    }
  }
  EXPECT_FALSE(visible("a"));
}

TEST_F(Fcntl, PosixAndOfdLocksAreExclusiveAndShared) {
  for (const Way way : {Way::kPosix, Way::kOfd}) {
    const int try_it = way == Way::kPosix ? F_SETLK : F_OFD_SETLK;
    Actor a;
    ASSERT_EQ(a.open(mount_.lock("a")), 0);
    const Fd fd = open("a");
    ASSERT_EQ(a.lock(way, 0, Want::kShared), 0);
    EXPECT_EQ(fcntl_of(fd.get(), try_it, F_WRLCK), EAGAIN);
    EXPECT_EQ(fcntl_of(fd.get(), try_it, F_RDLCK), 0);
    EXPECT_EQ(value("a", "holders_total"), "2");
    EXPECT_EQ(fcntl_of(fd.get(), try_it, F_UNLCK), 0);
    ASSERT_EQ(a.lock(way, 0, Want::kExclusive), 0);
    EXPECT_EQ(fcntl_of(fd.get(), try_it, F_RDLCK), EAGAIN);
  }
}

TEST_F(Fcntl, GetlkNamesTheHolder) {
  for (const Way way : kWays) {
    Actor holder;
    ASSERT_EQ(holder.open(mount_.lock("a")), 0);
    const Fd fd = open("a");
    EXPECT_EQ(asked(fd.get(), F_GETLK, F_WRLCK).l_type, F_UNLCK);
    ASSERT_EQ(holder.lock(way, 0, Want::kShared), 0);
    const struct flock found = asked(fd.get(), F_GETLK, F_WRLCK);
    EXPECT_EQ(found.l_type, F_RDLCK) << name_of(way);
    EXPECT_EQ(found.l_pid, holder.pid()) << name_of(way);
    EXPECT_EQ(found.l_start, 0);
    EXPECT_EQ(found.l_len, 0);
    EXPECT_EQ(asked(fd.get(), F_GETLK, F_RDLCK).l_type, F_UNLCK) << "PR goes with PR";
    ASSERT_EQ(holder.lock(way, 0, Want::kExclusive), 0);
    EXPECT_EQ(asked(fd.get(), F_OFD_GETLK, F_RDLCK).l_type, F_WRLCK) << name_of(way);
    EXPECT_EQ(asked(fd.get(), F_GETLK, F_RDLCK).l_pid, holder.pid()) << name_of(way);
  }
}

TEST_F(Fcntl, GetlkTakesNothingAndDoesNotSeeOnesOwn) {
  const Fd fd = open("a");
  EXPECT_EQ(asked(fd.get(), F_GETLK, F_WRLCK).l_type, F_UNLCK);
  EXPECT_FALSE(visible("a"));
  ASSERT_EQ(fcntl_of(fd.get(), F_SETLK, F_WRLCK), 0);
  EXPECT_EQ(asked(fd.get(), F_GETLK, F_WRLCK).l_type, F_UNLCK);
  const Fd second = open("a");
  EXPECT_EQ(asked(second.get(), F_GETLK, F_WRLCK).l_type, F_UNLCK) << "it is the process's own";
}

TEST_F(Fcntl, APosixLockBelongsToTheProcess) {
  const Fd first = open("a");
  const Fd second = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  EXPECT_EQ(fcntl_of(second.get(), F_SETLK, F_WRLCK), 0);
  EXPECT_EQ(value("a", "holders_total"), "1");
  EXPECT_EQ(fcntl_of(second.get(), F_SETLK, F_UNLCK), 0) << "through whichever descriptor";
  EXPECT_FALSE(visible("a"));
}

TEST_F(Fcntl, AnyCloseByTheProcessDropsItsPosixLock) {
  const Fd first = open("a");
  Fd second = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  ASSERT_TRUE(visible("a"));
  second.reset();
  EXPECT_FALSE(visible("a")) << "close of another descriptor of the file";
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  Fd copy(dup(first.get()));
  copy.reset();
  EXPECT_FALSE(visible("a")) << "close of a dup";
}

TEST_F(Fcntl, ACatByTheHolderItselfDropsItsPosixLockAsOnAnyFilesystem) {
  const Fd first = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  EXPECT_NE(slurp(mount_.lock("a")), "");
  EXPECT_FALSE(visible("a"));
}

TEST_F(Fcntl, ClosingAControlFileDropsNoPosixLock) {
  // The node ids of control files once looked like those of locks, after a few opens.
  for (int i = 0; i < 20; ++i) {
    const Fd fd = open("a");
    ASSERT_EQ(fcntl_of(fd.get(), F_SETLK, F_WRLCK), 0);
    EXPECT_EQ(control("stats").first, 0);
    EXPECT_NE(names_in(mount_.path() + "/default").size(), 0U);
    EXPECT_TRUE(visible("a")) << i;
  }
}

TEST_F(Fcntl, AnotherProcessesCloseDropsNothing) {
  const Fd first = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  Child child([&] {
    close(first.get());
    const Fd own(::open(mount_.lock("a").c_str(), O_RDWR));
    return fcntl_of(own.get(), F_SETLK, F_RDLCK);
  });
  EXPECT_EQ(child.wait(), EAGAIN) << "neither inherited nor dropped";
  EXPECT_TRUE(visible("a"));
}

TEST_F(Fcntl, AChildDoesNotInheritAPosixLock) {
  const Fd first = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_SETLK, F_WRLCK), 0);
  Child child([&] { return fcntl_of(first.get(), F_SETLK, F_WRLCK); });
  EXPECT_EQ(child.wait(), EAGAIN);
}

TEST_F(Fcntl, AnOfdLockBelongsToTheDescription) {
  const Fd first = open("a");
  Fd second = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_OFD_SETLK, F_WRLCK), 0);
  EXPECT_EQ(fcntl_of(second.get(), F_OFD_SETLK, F_RDLCK), EAGAIN);
  second.reset();
  EXPECT_TRUE(visible("a")) << "closing another description drops nothing";
  Fd copy(dup(first.get()));
  copy.reset();
  EXPECT_TRUE(visible("a"));
  Child child([&] { return fcntl_of(first.get(), F_OFD_SETLK, F_RDLCK); });
  EXPECT_EQ(child.wait(), 0) << "a child shares it, and converts it";
  EXPECT_EQ(value("a", "mode"), "PR");
}

TEST_F(Fcntl, AnOfdLockFallsWithTheLastClose) {
  Fd first = open("a");
  ASSERT_EQ(fcntl_of(first.get(), F_OFD_SETLK, F_WRLCK), 0);
  first.reset();
  EXPECT_FALSE(visible("a"));
}

TEST_F(Fcntl, PosixAndOfdLocksConvert) {
  for (const Way way : {Way::kPosix, Way::kOfd}) {
    Actor a;
    Actor b;
    ASSERT_EQ(a.open(mount_.lock("a")), 0);
    ASSERT_EQ(b.open(mount_.lock("a")), 0);
    ASSERT_EQ(a.lock(way, 0, Want::kExclusive), 0);
    b.begin(way, 0, Want::kShared);
    ASSERT_TRUE(eventually_waiting(1));
    ASSERT_EQ(a.lock(way, 0, Want::kShared), 0) << "down, at once";
    EXPECT_EQ(b.result(), 0);
    a.begin(way, 0, Want::kExclusive);
    ASSERT_TRUE(eventually_waiting(1));
    EXPECT_EQ(value("a", "holders_total"), "2") << "up, the old lock stays: not flock's rule";
    ASSERT_EQ(b.lock(way, 0, Want::kNothing), 0);
    EXPECT_EQ(a.result(), 0);
    EXPECT_EQ(value("a", "mode"), "EX");
  }
}

TEST_F(Fcntl, TwoUpgradesThatBlockEachOtherEndInEdeadlk) {
  for (const Way way : {Way::kPosix, Way::kOfd}) {
    Actor a;
    Actor b;
    ASSERT_EQ(a.open(mount_.lock("a")), 0);
    ASSERT_EQ(b.open(mount_.lock("a")), 0);
    ASSERT_EQ(a.lock(way, 0, Want::kShared), 0);
    ASSERT_EQ(b.lock(way, 0, Want::kShared), 0);
    a.begin(way, 0, Want::kExclusive);
    ASSERT_TRUE(eventually_waiting(1));
    EXPECT_EQ(b.lock(way, 0, Want::kExclusive), EDEADLK);
    ASSERT_EQ(b.lock(way, 0, Want::kNothing), 0);
    EXPECT_EQ(a.result(), 0);
  }
}

TEST_F(Fcntl, SetlkwWaitsForItsTurn) {
  for (const Way way : {Way::kPosix, Way::kOfd}) {
    Actor waiter;
    ASSERT_EQ(waiter.open(mount_.lock("a")), 0);
    const Fd holder = hold("a", "EX");
    waiter.begin(way, 0, Want::kExclusive);
    ASSERT_TRUE(eventually_waiting(1));
    EXPECT_EQ(value("a", "waiters.0.pid"), std::to_string(waiter.pid()));
    ASSERT_EQ(write_command(holder.get(), "UN"), 0);
    EXPECT_EQ(waiter.result(), 0);
    EXPECT_EQ(value("a", "holders.0.pid"), std::to_string(waiter.pid()));
  }
}

TEST_F(Fcntl, AnExclusivelyCreatedFileMayBeLockedByItsCreator) {
  const Fd fd = open("a", O_RDWR | O_CREAT | O_EXCL);
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(fcntl_of(fd.get(), F_SETLK, F_WRLCK), 0) << "what it holds already";
  EXPECT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_WRLCK), 0);
  EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(value("a", "holders_total"), "1");
}

TEST_F(Fcntl, TheDescriptionsOtherWaysConvertItsOfdLock) {
  const Fd fd = open("a");
  ASSERT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_WRLCK), 0);
  EXPECT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), 0);
  EXPECT_EQ(value("a", "mode"), "PR");
  EXPECT_EQ(write_command(fd.get(), "PW try"), 0);
  EXPECT_EQ(value("a", "mode"), "PW");
  EXPECT_EQ(value("a", "holders_total"), "1");
  EXPECT_EQ(fcntl_of(fd.get(), F_OFD_SETLK, F_RDLCK), 0);
  EXPECT_EQ(value("a", "mode"), "PR");
  EXPECT_EQ(write_command(fd.get(), "UN"), 0);
  EXPECT_FALSE(visible("a"));
}

TEST_F(Fcntl, FlockConvertsThePosixLockOfItsProcess) {
  const Fd fd = open("a");
  for (const bool flock_first : {false, true}) {
    const auto take_flock = [&] { EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), 0); };
    if (flock_first) take_flock();
    EXPECT_EQ(lockf(fd.get(), F_TLOCK, 0), 0);
    if (!flock_first) take_flock();
    EXPECT_EQ(value_of(fd.get(), "holders_total"), "1") << flock_first;
    EXPECT_EQ(value_of(fd.get(), "mode"), "EX") << flock_first;
    EXPECT_EQ(flock_of(fd.get(), LOCK_SH | LOCK_NB), 0);
    EXPECT_EQ(value_of(fd.get(), "mode"), "PR") << flock_first;
    EXPECT_EQ(flock_first ? lockf(fd.get(), F_ULOCK, 0) : flock_of(fd.get(), LOCK_UN), 0);
    EXPECT_FALSE(visible("a")) << flock_first;
  }
  EXPECT_EQ(lockf(fd.get(), F_TLOCK, 0), 0);
  EXPECT_EQ(flock_of(fd.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(lockf(fd.get(), F_ULOCK, 0), 0);
  EXPECT_FALSE(visible("a")) << "or by the way it was taken first";
}

TEST_F(Fcntl, FlockByAChildWaitsForThePosixLockOfItsParent) {
  const Fd fd = open("a");
  ASSERT_EQ(lockf(fd.get(), F_TLOCK, 0), 0);
  Child child([&] { return flock_of(fd.get(), LOCK_EX | LOCK_NB); });
  EXPECT_EQ(child.wait(), EAGAIN);
  EXPECT_EQ(lockf(fd.get(), F_ULOCK, 0), 0);
  Child second([&] { return flock_of(fd.get(), LOCK_EX | LOCK_NB); });
  EXPECT_EQ(second.wait(), 0);
}

TEST_F(Fcntl, LockfOfTheWholeFileLocks) {
  const Fd fd = open("a");
  ASSERT_EQ(lockf(fd.get(), F_TLOCK, 0), 0);
  EXPECT_EQ(value("b", "mode"), "");
  Child child([&] {
    const Fd own(::open(mount_.lock("a").c_str(), O_RDWR));
    return lockf(own.get(), F_TLOCK, 0) == 0 ? 0 : errno;
  });
  EXPECT_EQ(child.wait(), EAGAIN);
}

}  // namespace
}  // namespace lockfs::test
