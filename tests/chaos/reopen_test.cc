// SPDX-License-Identifier: MIT
// close() followed at once by open(O_EXCL) of the same name, many times over.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <iostream>
#include <memory>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

constexpr size_t kProcesses = 8;

int open_exclusive(const std::string& path) {
  return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

// How many of `count` cycles on one name of our own were refused.
uint64_t failed_cycles(const std::string& path, uint64_t count) {
  uint64_t failed = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const int fd = open_exclusive(path);
    if (fd < 0) ++failed;
    if (fd >= 0) close(fd);
  }
  return failed;
}

class Reopen : public MountTest {
 protected:
  uint64_t cycles_ = setting("LOCKFS_CYCLES", 100000);

  static void report(uint64_t cycles, int64_t since) {
    const double seconds = static_cast<double>(monotonic() - since) / 1e9;
    std::cout << cycles << " cycles in " << seconds << " s, "
              << seconds * 1e6 / static_cast<double>(cycles) << " us each\n";
  }
};

TEST_F(Reopen, OneProcessNeverFindsItsOwnLockHeld) {
  const uint64_t count = cycles_ / 2;
  const int64_t since = monotonic();
  EXPECT_EQ(failed_cycles(mount_.lock("a"), count), 0U);
  report(count, since);
  EXPECT_EQ(value("a", "mode"), "") << "and nothing is left";
}

TEST_F(Reopen, EightProcessesNeverFindTheirOwnLocksHeld) {
  const uint64_t count = cycles_ / 2 / kProcesses;
  const Shared<std::array<std::atomic<uint64_t>, kProcesses>> failed;
  const int64_t since = monotonic();
  std::vector<std::unique_ptr<Child>> children;
  for (size_t i = 0; i < kProcesses; ++i) {
    children.push_back(std::make_unique<Child>([&, i] {
      failed->at(i) = failed_cycles(mount_.lock("own" + std::to_string(i)), count);
      return 0;
    }));
  }
  for (size_t i = 0; i < kProcesses; ++i) {
    EXPECT_EQ(children[i]->wait(), 0);
    EXPECT_EQ(failed->at(i).load(), 0U) << "process " << i;
  }
  report(count * kProcesses, since);
}

// What a process saw that closes a thousand locks at once and takes them again.
struct Rounds {
  std::atomic<uint64_t> refused;   ///< open(O_EXCL) of a name that nobody holds any more.
  std::atomic<uint64_t> not_held;  ///< A granted lock that its descriptor does not hold.
  std::atomic<int> last_error;
};

constexpr unsigned kMany = 1000;
constexpr int kRounds = 20;

bool holds_exclusive(int fd) {
  std::array<char, 8> mode{};
  const ssize_t n = fgetxattr(fd, "user.lockfs.mode", mode.data(), mode.size());
  return n == 2 && mode[0] == 'E' && mode[1] == 'X';
}

// Opens all thousand, forwards or backwards. Descriptors from 3 on are ours alone.
void take_all(const Mount& mount, bool forwards, Rounds& seen) {
  for (unsigned i = 0; i < kMany; ++i) {
    const unsigned number = forwards ? i : kMany - 1 - i;
    if (open_exclusive(mount.lock("many" + std::to_string(number))) >= 0) continue;
    ++seen.refused;
    seen.last_error = errno;
  }
}

int close_and_reopen(const Mount& mount, Rounds& seen) {
  constexpr rlimit kFiles = {kMany + 100, kMany + 100};
  if (setrlimit(RLIMIT_NOFILE, &kFiles) != 0) return 1;
  if (close_range(3, ~0U, 0) != 0) return 2;
  take_all(mount, true, seen);
  for (int round = 0; round < kRounds; ++round) {
    if (close_range(3, kMany + 2, 0) != 0) return 3;
    take_all(mount, round % 4 < 2, seen);
    for (unsigned fd = 3; fd < kMany + 3; ++fd) {
      if (!holds_exclusive(static_cast<int>(fd))) ++seen.not_held;
    }
  }
  return 0;
}

TEST_F(Reopen, AThousandClosedAtOnceAreFreeInEitherOrder) {
  const Shared<Rounds> seen;
  Child child([&] { return close_and_reopen(mount_, *seen); });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(seen->refused.load(), 0U) << "last errno " << seen->last_error.load();
  EXPECT_EQ(seen->not_held.load(), 0U);
  EXPECT_TRUE(eventually([&] { return names_in(mount_.path() + "/default").size() == 1; }))
      << "its death frees them all: only .ctl is left";
}

TEST_F(Reopen, AnotherProcessFindsWhatWasClosedFree) {
  // The close of one process and the open of another, with a byte through a pipe in between.
  std::array<int, 2> closed{};
  std::array<int, 2> again{};
  ASSERT_EQ(pipe2(closed.data(), O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(again.data(), O_CLOEXEC), 0);
  constexpr int kTurns = 5000;
  const std::string path = mount_.lock("ball");
  Child partner([&] {
    char byte = 0;
    for (int i = 0; i < kTurns; ++i) {
      if (read(closed[0], &byte, 1) != 1) return 1;
      const int fd = open_exclusive(path);
      if (fd < 0) return 2;
      close(fd);
      if (write(again[1], &byte, 1) != 1) return 3;
    }
    return 0;
  });
  close(again[1]);
  int refused = 0;
  for (int i = 0; i < kTurns; ++i) {
    char byte = 0;
    const int fd = open_exclusive(path);
    if (fd < 0) ++refused;
    if (fd >= 0) close(fd);
    if (write(closed[1], &byte, 1) != 1 || read(again[0], &byte, 1) != 1) break;
  }
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(partner.wait(), 0);
  close(again[0]);
  close(closed[0]);
  close(closed[1]);
}

}  // namespace
}  // namespace lockfs::test
