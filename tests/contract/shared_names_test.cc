// SPDX-License-Identifier: MIT
// What one node sees of the names, holders and pins of another.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>

#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedNames : public ContractTest {};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedNames, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

// What the command prints, or its errno in words.
std::string control(const std::string& lockspace, const std::string& command) {
  const int fd = open((lockspace + "/.ctl").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return "cannot open .ctl";
  const int wrong = write_command(fd, command);
  std::string answer(4096, '\0');
  const ssize_t n = read(fd, answer.data(), answer.size());
  answer.resize(n > 0 ? static_cast<size_t>(n) : 0);
  close(fd);
  if (wrong != 0) return strerrorname_np(wrong);
  while (!answer.empty() && answer.back() == '\n') answer.pop_back();
  return answer;
}

TEST_P(SharedNames, AHolderIsNamedOnTheOtherNode) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int fd = open_lock(0, "whose");
  ASSERT_EQ(write_command(fd, "EX note=\"by hand\""), 0);
  std::string picture;
  EXPECT_TRUE(eventually([&] {
    picture = slurp(lock(1, "whose"));
    return picture_value(picture, "holders.0.note") == "by hand";
  })) << picture;
  EXPECT_EQ(picture_value(picture, "mode"), "EX");
  EXPECT_EQ(picture_value(picture, "holders.0.pid"), std::to_string(getpid()));
  EXPECT_THAT(listed(1), testing::Contains("whose"));
}

TEST_P(SharedNames, AFreedNameIsGoneOnTheOtherNode) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int fd = open_lock(0, "gone");
  ASSERT_EQ(write_command(fd, "PR"), 0);
  EXPECT_TRUE(sees([&] { return access(lock(1, "gone").c_str(), F_OK) == 0; }));
  ASSERT_EQ(write_command(fd, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return access(lock(1, "gone").c_str(), F_OK) != 0; }));
  EXPECT_EQ(errno, ENOENT);
}

TEST_P(SharedNames, APinIsEverybodys) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  ASSERT_EQ(utimensat(AT_FDCWD, lock(0, "pinned").c_str(), nullptr, 0), -1);
  const int fd = open(lock(0, "pinned").c_str(), O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(futimens(fd, nullptr), 0);
  close(fd);
  EXPECT_EQ(access(lock(1, "pinned").c_str(), F_OK), 0);
  EXPECT_THAT(listed(1), testing::Contains("pinned"));
  EXPECT_EQ(unlink(lock(1, "pinned").c_str()), 0);
  EXPECT_THAT(listed(0), testing::Not(testing::Contains("pinned")));
}

TEST_P(SharedNames, LongAndOddNamesAreLocksOfTheirOwn) {
  const std::string names[] = {std::string(world().max_name_bytes(), 'n'),
                               "a b",
                               "-",
                               "\xff\x01",
                               "..x",
                               "%2F",
                               "a%2Fb",
                               "new\nline"};
  for (const std::string& name : names) {
    const int fd =
        open((node(0).path() + "/default/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
    ASSERT_GE(fd, 0) << name << " " << errno;
    EXPECT_EQ(open((node(1).path() + "/default/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0666),
              -1)
        << name;
    EXPECT_EQ(errno, EEXIST) << name;
    close(fd);
  }
}

TEST_P(SharedNames, LongerNamesAreRefused) {
  const std::string name =
      node(0).path() + "/default/" + std::string(world().max_name_bytes() + 1, 'n');
  EXPECT_EQ(open(name.c_str(), O_RDWR | O_CREAT, 0666), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  const std::string space =
      node(0).path() + "/" + std::string(world().max_lockspace_bytes() + 1, 's');
  EXPECT_EQ(mkdir(space.c_str(), 0777), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_P(SharedNames, NumbersAreHandedOutOnce) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const std::string zero = node(0).path() + "/default";
  const std::string one = node(1).path() + "/default";
  std::set<std::string> ids;
  for (int i = 0; i < 10; ++i) ids.insert(control(i % 2 == 0 ? zero : one, "allocate"));
  EXPECT_EQ(ids.size(), 10U) << testing::PrintToString(ids);
  EXPECT_EQ(control(one, "allocate 3"), "EEXIST");
  EXPECT_EQ(control(one, "free 3"), "");
  EXPECT_EQ(control(zero, "allocate 3"), "3");
}

TEST_P(SharedNames, NumbersComeBackAfterARestart) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  if (!world().separate_nodes()) GTEST_SKIP() << "memory: forgets by its nature";
  ASSERT_EQ(control(node(0).path() + "/default", "allocate 7"), "7");
  restart_node(0);
  EXPECT_EQ(control(node(0).path() + "/default", "allocate 7"), "EEXIST");
  EXPECT_THAT(listed(0), testing::Contains("7"));
}

}  // namespace
}  // namespace lockfs::test
