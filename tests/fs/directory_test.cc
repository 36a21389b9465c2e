// SPDX-License-Identifier: MIT
// Directories of many names: what their readers see, and what they make the daemon keep.
#include <dirent.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <sstream>

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
