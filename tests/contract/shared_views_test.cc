// SPDX-License-Identifier: MIT
// What each node tells of locks that are held and wanted on the other: to people, to programs, and
// to system calls.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

class SharedViews : public ContractTest {
 protected:
  // The locks of locks.json, each with its mode.
  std::map<std::string, std::string> told(size_t i) {
    std::map<std::string, std::string> modes;
    for (const auto& each : YAML::LoadFile(node(i).path() + "/.lockfs/locks.json")["locks"]) {
      const auto name = each["lock"].as<std::string>();
      const bool first = modes.emplace(name, each["mode"].as<std::string>()).second;
      EXPECT_TRUE(first) << name << " is told twice";
    }
    return modes;
  }
  std::string traits(size_t i, const std::string& key) {
    return picture_value(slurp(node(i).path() + "/.lockfs/traits"), "default." + key);
  }
  // By path, as getfattr.
  std::string attribute(size_t i, const std::string& name, const std::string& key) {
    std::array<char, 256> value{};
    const std::string full = "user.lockfs." + key;
    const ssize_t n = getxattr(lock(i, name).c_str(), full.c_str(), value.data(), value.size());
    return n < 0 ? strerrorname_np(errno) : std::string(value.data(), static_cast<size_t>(n));
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedViews, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

TEST_P(SharedViews, TheTraitsAreThoseOfTheWorld) {
  for (const size_t i : {0, 1}) {
    EXPECT_EQ(traits(i, "backend"), GetParam());
    EXPECT_EQ(traits(i, "fifo"), world().fifo() ? "true" : "false");
    EXPECT_EQ(traits(i, "other_nodes"), world().separate_nodes() ? "true" : "false");
    EXPECT_EQ(traits(i, "sees_other_nodes"), world().sees_others() ? "true" : "false");
    EXPECT_EQ(traits(i, "shared_modes"), world().shares_modes() ? "true" : "false");
    EXPECT_EQ(traits(i, "max_name_bytes"), std::to_string(world().max_name_bytes()));
    EXPECT_EQ(traits(i, "max_lockspace_bytes"), std::to_string(world().max_lockspace_bytes()));
    EXPECT_EQ(shown(i, "free", "backend"), "") << "a free lock has no picture";
  }
}

TEST_P(SharedViews, BothNodesListWhatIsHeldOnEither) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int a = open_lock(0, "a");
  const int b = open_lock(1, "b");
  const int both[] = {open_lock(0, "both"), open_lock(1, "both")};
  const int c = open_lock(0, "c d");
  const int e = open_lock(1, "e%2Ff");
  ASSERT_EQ(write_command(a, "EX"), 0);
  ASSERT_EQ(write_command(b, "PR"), 0);
  for (const int fd : both) ASSERT_EQ(write_command(fd, "CR"), 0);
  ASSERT_EQ(write_command(c, "CW"), 0);
  ASSERT_EQ(write_command(e, "PW"), 0);
  open_lock(0, "only open");
  const std::map<std::string, std::string> json = {
      {"a", "EX"}, {"b", "PR"}, {"both", "CR"}, {"c d", "CW"}, {"e/f", "PW"}};
  for (const size_t i : {0, 1}) {
    const std::set<std::string> names = {"a", "b", "both", "c d", "e%2Ff"};
    EXPECT_TRUE(sees([&] { return listed(i) == names; })) << testing::PrintToString(listed(i));
    EXPECT_EQ(told(i), json);
  }
  for (const int fd : {a, b, both[0], c, e}) ASSERT_EQ(write_command(fd, "UN"), 0);
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(eventually([&] { return listed(i) == std::set<std::string>{"both"}; }));
    EXPECT_THAT(told(i), testing::ElementsAre(testing::Pair("both", "CR")));
  }
}

TEST_P(SharedViews, BothNodesListHundredsOfNames) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  std::set<std::string> all;
  std::vector<int> held;
  for (size_t i = 0; i < 400; ++i) {
    const std::string name = "name" + std::to_string(i);
    held.push_back(open(lock(i % 2, name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    ASSERT_GE(held.back(), 0) << errno;
    all.insert(name);
  }
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(sees([&] { return listed(i) == all; })) << listed(i).size();
    EXPECT_EQ(told(i).size(), all.size());
  }
  for (const int fd : held) close(fd);
  for (const size_t i : {0, 1}) EXPECT_TRUE(eventually([&] { return listed(i).empty(); }));
}

TEST_P(SharedViews, BothNodesShowTheHoldersOfBoth) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int one = open_lock(0, "readers");
  const int two = open_lock(1, "readers");
  ASSERT_EQ(write_command(one, "PR note=zero"), 0);
  ASSERT_EQ(write_command(two, "CR note=one"), 0);
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(eventually([&] {
      return std::set{shown(i, "readers", "holders.0.note"),
                      shown(i, "readers", "holders.1.note")} ==
             std::set<std::string>{"zero", "one"};
    })) << picture(i, "readers");
    EXPECT_EQ(shown(i, "readers", "holders_total"), "2");
    EXPECT_EQ(shown(i, "readers", "mode"), "PR");
    EXPECT_EQ(shown(i, "readers", "holders.0.pid"), std::to_string(getpid()));
    EXPECT_EQ(shown(i, "readers", "holders.1.pid"), std::to_string(getpid()));
  }
}

TEST_P(SharedViews, AWaiterIsShownOnTheOtherNodeForAsLongAsItWaits) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  ASSERT_EQ(write_command(open_lock(0, "wanted"), "PR"), 0);
  auto waiter = std::make_unique<Child>([path = lock(1, "wanted")] { return ask(path, "PW"); });
  for (const size_t i : {0, 1}) {
    ASSERT_TRUE(eventually_waiting(i, "wanted", 1)) << picture(i, "wanted");
    EXPECT_EQ(shown(i, "wanted", "waiters.0.mode"), "PW");
    EXPECT_NE(shown(i, "wanted", "waiters.0.host"), "");
    EXPECT_EQ(shown(i, "wanted", "holders_total"), "1") << picture(i, "wanted");
    EXPECT_THAT(told(i), testing::ElementsAre(testing::Pair("wanted", "PR")));
  }
  waiter.reset();
  for (const size_t i : {0, 1}) EXPECT_TRUE(eventually_waiting(i, "wanted", 0));
}

TEST_P(SharedViews, ANameThatIsOnlyWantedIsNotThere) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int holder = open_lock(0, "half");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  Child waiter([path = lock(1, "half")] { return ask(path, "EX timeout=60s"); });
  ASSERT_TRUE(eventually_waiting(0, "half", 1));
  ASSERT_EQ(write_command(holder, "UN"), 0);
  EXPECT_EQ(end_of(waiter), 0);
  for (const size_t i : {0, 1}) EXPECT_TRUE(eventually([&] { return listed(i).empty(); }));
}

TEST_P(SharedViews, ALockHeldElsewhereCannotBeRemoved) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  ASSERT_EQ(write_command(open_lock(0, "busy"), "CR"), 0);
  EXPECT_TRUE(sees([&] { return unlink(lock(1, "busy").c_str()) == -1 && errno == EBUSY; }))
      << errno;
}

TEST_P(SharedViews, APinsModeIsThatOfTheOtherNode) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int fd = open_lock(0, "narrow");
  ASSERT_EQ(futimens(fd, nullptr), 0);
  ASSERT_EQ(fchmod(fd, 0640), 0);
  struct stat attr {};
  EXPECT_TRUE(eventually([&] {
    return stat(lock(1, "narrow").c_str(), &attr) == 0 && (attr.st_mode & 0777) == 0640;
  })) << std::oct
      << attr.st_mode;
}

TEST_P(SharedViews, LockspacesOfOneNameAreOneAndOthersAreOthers) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  if (!world().separate_nodes()) GTEST_SKIP() << "one mount has each lockspace once";
  const std::string space(world().max_lockspace_bytes(), 's');
  const std::string name(world().max_name_bytes(), 'n');
  for (const size_t i : {0, 1}) ASSERT_EQ(mkdir((node(i).path() + "/" + space).c_str(), 0777), 0);
  ASSERT_EQ(write_command(open_lock(0, space + "/" + name), "EX"), 0);
  EXPECT_EQ(write_command(open_lock(1, space + "/" + name), "CR try"), EAGAIN);
  EXPECT_EQ(write_command(open_lock(1, name), "EX try"), 0);
  EXPECT_THAT(listed(1, space), testing::ElementsAre(name));
}

TEST_P(SharedViews, OddNamesAreThemselvesOnBothNodes) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  std::string slashes;
  const size_t most = world().max_name_bytes();
  for (size_t i = 0; i < std::min<size_t>(most, 255 / 3); ++i) slashes += "%2F";
  const std::set<std::string> names = {
      "%", "%2f",  "%252F", "a%2Fb", ".hidden",  "a\\b",    "\"q\"", "# x", "- y: z",
      "~", "null", "\t",    " ",     "\x7f\xfe", "ä\u20ac", slashes, "...", std::string(most, '%')};
  for (const std::string& name : names) {
    ASSERT_EQ(write_command(open_lock(0, name), "EX"), 0) << name;
    EXPECT_EQ(write_command(open_lock(1, name), "CR try"), EAGAIN) << name;
  }
  for (const size_t i : {0, 1}) EXPECT_EQ(listed(i), names) << "node " << i;
}

TEST_P(SharedViews, SlotsAreSharedOrRefused) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int one = open_lock(0, "slots");
  const int two = open_lock(1, "slots");
  const int three = open_lock(0, "slots");
  if (world().separate_nodes() && traits(0, "slots") != "true") {
    for (const int fd : {one, two}) EXPECT_EQ(write_command(fd, "SLOT size=2"), EOPNOTSUPP);
    return;
  }
  EXPECT_EQ(write_command(one, "SLOT size=2"), 0);
  EXPECT_EQ(write_command(two, "SLOT size=2"), 0);
  EXPECT_EQ(write_command(three, "SLOT size=2 try"), EAGAIN);
}

// DLM users keep a number in it that the next holder goes on from, wherever that one is.
TEST_P(SharedViews, TheValueBlockIsSharedOrRefused) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int one = open_lock(0, "value");
  const int two = open_lock(1, "value");
  ASSERT_EQ(write_command(one, "EX"), 0);
  const std::string value(32, 'v');
  const int set = fsetxattr(one, "user.lockfs.lvb", value.data(), value.size(), 0);
  if (set != 0) {
    EXPECT_EQ(errno, EOPNOTSUPP);
    return;
  }
  ASSERT_EQ(write_command(one, "NL"), 0);
  ASSERT_EQ(write_command(two, "PR timeout=10s"), 0);
  std::string read(32, '\0');
  EXPECT_EQ(fgetxattr(two, "user.lockfs.lvb", read.data(), read.size()), 32);
  EXPECT_EQ(read, value);
}

TEST_P(SharedViews, TheTokenIsShownOnTheOtherNodeAlsoAfterAHandOver) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int one = open_lock(0, "token");
  const int two = open_lock(0, "token");
  ASSERT_EQ(write_command(one, "EX"), 0);
  EXPECT_TRUE(
      eventually([&] { return shown(1, "token", "token") == std::to_string(token_of(one)); }));
  Child heir([&] {
    const int wrong = write_command(two, "EX timeout=60s");
    return wrong != 0 ? wrong : pause();
  });
  ASSERT_TRUE(eventually_waiting(0, "token", 1));
  ASSERT_EQ(write_command(one, "UN"), 0);
  ASSERT_TRUE(eventually([&] { return token_of(two) != 0; }));
  EXPECT_TRUE(
      eventually([&] { return shown(1, "token", "token") == std::to_string(token_of(two)); }, 2))
      << shown(1, "token", "token") << " is not the " << token_of(two) << " of the holder";
}

TEST_P(SharedViews, AttributesTellOfAHolderOnTheOtherNode) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int holder = open_lock(0, "attributes");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  const std::string token = std::to_string(token_of(holder));
  EXPECT_TRUE(sees([&] { return attribute(1, "attributes", "mode") == "EX"; }));
  EXPECT_TRUE(eventually([&] { return attribute(1, "attributes", "token") == token; }, 2))
      << attribute(1, "attributes", "token") << " is not " << token;
  const std::string pid = "pid=" + std::to_string(getpid());
  EXPECT_TRUE(eventually(
      [&] { return attribute(1, "attributes", "holder").find(pid) != std::string::npos; }, 2))
      << attribute(1, "attributes", "holder");
}

TEST_P(SharedViews, FcntlGetlkTellsOfAHolderOnTheOtherNode) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  ASSERT_EQ(write_command(open_lock(0, "getlk"), "EX"), 0);
  const int asks = open_lock(1, "getlk");
  EXPECT_TRUE(sees([&] {
    struct flock whole {};
    whole.l_type = F_WRLCK;
    return fcntl(asks, F_OFD_GETLK, &whole) == 0 && whole.l_type == F_WRLCK;
  })) << "F_UNLCK says that it could be had";
}

TEST_P(SharedViews, BreakingALockOfTheOtherNodeBreaksItOrSaysThatItCannot) {
  if (!world().sees_others()) GTEST_SKIP() << "others are met, not seen";
  const int holder = open_lock(0, "break");
  ASSERT_EQ(write_command(holder, "EX"), 0);
  int result = 0;
  EXPECT_TRUE(sees([&] {
    result = ask(node(1).path() + "/default/.ctl", "break break");
    return result != ENOENT;
  })) << "it is held, and node 1 shows it";
  if (result == 0) {
    EXPECT_EQ(write_command(holder, "renew"), ESTALE);
  }
}

}  // namespace
}  // namespace lockfs::test
