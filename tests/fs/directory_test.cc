// SPDX-License-Identifier: MIT
// Directories of many names: what their readers see, and what they make the daemon keep.
#include <dirent.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <sstream>
#include <thread>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kMiB = size_t{1} << 20;
constexpr auto kWhy = "sanitizers keep what was freed, and shadows of it";

using Dir = std::unique_ptr<DIR, int (*)(DIR*)>;

class Directories : public MountTest {
 protected:
  Dir open_directory() const { return {opendir((mount_.path() + "/default").c_str()), closedir}; }
  /// 20,000 names: 5 MB of them.
  void pin_many() const {
    const Fd fd(::open(mount_.lock(".ctl").c_str(), O_RDWR | O_CLOEXEC));
    const std::string long_name(240, 'x');
    for (int i = 10000; i < 30000; ++i) {
      ASSERT_EQ(write_command(fd.get(), "pin " + long_name + std::to_string(i)), 0);
    }
  }
  size_t resident() const {
    std::istringstream status(slurp("/proc/" + std::to_string(mount_.daemon()) + "/statm"));
    size_t total = 0;
    size_t pages = 0;
    status >> total >> pages;
    return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  }
  /// The most that it ever was.
  size_t peak() const {
    const std::string status = slurp("/proc/" + std::to_string(mount_.daemon()) + "/status");
    return std::stoul(status.substr(status.find("VmHWM:") + 6)) * 1024;
  }
  static std::vector<std::string> rest_of(const Dir& dir) {
    std::vector<std::string> out;
    while (const dirent* entry = readdir(dir.get())) out.emplace_back(entry->d_name);
    return out;
  }
};

TEST_F(Directories, OfManyNamesCostNothingUntilTheyAreRead) {
  if (kSanitized) GTEST_SKIP() << kWhy;
  pin_many();
  const size_t before = resident();
  std::vector<Dir> all;
  for (int i = 0; i < 50; ++i) all.push_back(open_directory());
  EXPECT_LT(resident(), before + 50 * kMiB);
}

TEST_F(Directories, ThatWereReadToTheEndCostNothing) {
  if (kSanitized) GTEST_SKIP() << kWhy;
  pin_many();
  const size_t before = resident();
  std::vector<Dir> all;
  for (int i = 0; i < 50; ++i) {
    all.push_back(open_directory());
    ASSERT_EQ(rest_of(all.back()).size(), 20003U);
  }
  EXPECT_LT(resident(), before + 50 * kMiB);
}

TEST_F(Directories, ThatAUserReadsHalfAreLimited) {
  if (kSanitized) GTEST_SKIP() << kWhy;
  pin_many();
  const size_t before = resident();
  Child user([&] {
    if (setgid(1000) != 0 || setuid(1000) != 0) return 1;
    std::vector<Dir> all;
    for (int i = 0; i < 60; ++i) {
      all.push_back(open_directory());
      errno = 0;
      if (readdir(all.back().get()) != nullptr) continue;
      if (errno != ENOLCK || i < 40) return 2;
      if (resident() > before + 320 * kMiB) return 3;
      rest_of(all.front());
      return readdir(all.back().get()) != nullptr ? 0 : 4;
    }
    return 5;
  });
  EXPECT_EQ(user.wait(), 0);
  EXPECT_THAT(mount_.log(), HasSubstr("read refused to uid 1000"));
}

// The other long things that are read: a lock with long notes, and all locks.
TEST_F(Directories, AndPicturesThatAUserReadsHalfAreLimited) {
  if (kSanitized) GTEST_SKIP() << kWhy;
  std::vector<Fd> holders;
  for (int i = 0; i < 100; ++i) {
    holders.push_back(hold("noted", "CR note=" + std::string(4000, 'x')));
  }
  const size_t before = resident();
  Child user([&] {
    if (setgid(1000) != 0 || setuid(1000) != 0) return 1;
    std::vector<Fd> all;
    std::vector<char> text(kMiB);
    for (int i = 0; i < 1000; ++i) {
      all.emplace_back(::open(mount_.lock("noted").c_str(), O_RDONLY));
      if (pread(all.back().get(), text.data(), 100, 0) == 100) continue;
      if (errno != ENOLCK || i < 100) return 2;
      if (resident() > before + 320 * kMiB) return 3;
      while (read(all.front().get(), text.data(), text.size()) > 0) continue;
      return pread(all.back().get(), text.data(), 100, 0) == 100 ? 0 : 4;
    }
    return 5;
  });
  EXPECT_EQ(user.wait(), 0);
}

TEST_F(Directories, AndListingsForManyAtOnceTakeTheRoomOfFew) {
  if (kSanitized) GTEST_SKIP() << kWhy;
  pin_many();
  const size_t before = resident();
  Child user([&] {
    if (setgid(1000) != 0 || setuid(1000) != 0) return 1;
    std::atomic<int> had{0};
    std::atomic<int> other{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 200; ++i) {
      readers.emplace_back([&] {
        const Fd fd(::open((mount_.path() + "/.lockfs/locks.json").c_str(), O_RDONLY));
        std::array<char, 100> text{};
        const bool got = pread(fd.get(), text.data(), text.size(), 0) > 0;
        (got ? had : other) += got || errno == ENOLCK ? 1 : 1000;
      });
    }
    for (std::thread& reader : readers) reader.join();
    return had > 0 && had + other == 200 ? 0 : 2;
  });
  EXPECT_EQ(user.wait(), 0);
  EXPECT_LT(peak(), before + 320 * kMiB);
}

TEST_F(Directories, ShowNewNamesAfterARewind) {
  const Fd old = hold("old", "EX");
  const Dir dir = open_directory();
  EXPECT_THAT(rest_of(dir), Contains("old"));
  const Fd fresh = hold("new", "EX");
  EXPECT_EQ(readdir(dir.get()), nullptr) << "the end stays the end";
  rewinddir(dir.get());
  EXPECT_THAT(rest_of(dir), Contains("new"));
  ASSERT_EQ(write_command(old.get(), "UN"), 0);
  rewinddir(dir.get());
  EXPECT_THAT(rest_of(dir), Not(Contains("old")));
}

TEST_F(Directories, CanBeReadFromAPlaceAgainAfterTheEnd) {
  std::vector<Fd> all;
  for (int i = 0; i < 500; ++i) all.push_back(hold(std::to_string(i), "PR"));
  const Dir dir = open_directory();
  for (int i = 0; i < 300; ++i) ASSERT_NE(readdir(dir.get()), nullptr);
  const long place = telldir(dir.get());
  const auto rest = rest_of(dir);
  EXPECT_EQ(rest.size(), 203U);
  seekdir(dir.get(), place);
  EXPECT_EQ(rest_of(dir), rest);
}

}  // namespace
}  // namespace lockfs::test
