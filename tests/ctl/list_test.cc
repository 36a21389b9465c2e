// SPDX-License-Identifier: MIT
// lockctl list: the table, what it leaves out, its order.
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "ctl/process.h"
#include "tests/ctl/terminal.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class LockctlList : public LockctlTest {
 protected:
  /// The names in the first column, in their order.
  Words names(const Words& options, uid_t uid = 0) const {
    Words words = {"list", "--no-headings"};
    words.insert(words.end(), options.begin(), options.end());
    std::istringstream lines(lockctl(words, uid).out);
    Words out;
    for (std::string line; std::getline(lines, line);)
      out.push_back(line.substr(0, line.find(' ')));
    return out;
  }
};

TEST_F(LockctlList, ShowsEachHeldLockWithItsHolder) {
  const Fd a = hold("a", "EX");
  const Fd b = hold("b", "PR");
  const Ended list = lockctl({"list"});
  EXPECT_EQ(list.status, 0) << list.err;
  std::istringstream lines(list.out);
  Words all;
  for (std::string line; std::getline(lines, line);) all.push_back(line);
  ASSERT_EQ(all.size(), 3U) << list.out;
  for (const char* heading :
       {"NAME", "MODE", "PID", "USER", "COMMAND", "CONTAINER", "SINCE", "WAITERS"}) {
    EXPECT_THAT(all[0], HasSubstr(heading));
  }
  EXPECT_THAT(all[1], AllOf(HasSubstr("default/a "), HasSubstr(" EX "), HasSubstr(" root "),
                            HasSubstr(std::to_string(getpid())), HasSubstr("ctl_tests")));
  EXPECT_THAT(all[2], AllOf(HasSubstr("default/b "), HasSubstr(" PR ")));
}

TEST_F(LockctlList, IsEmptyButForItsHeadingsWhenNothingIsHeld) {
  EXPECT_THAT(names({}), IsEmpty());
  EXPECT_THAT(lockctl({"list"}).out, HasSubstr("NAME"));
}

TEST_F(LockctlList, EachHolderHasALine) {
  const Fd one = hold("a", "PR");
  const Fd two = hold("a", "PR");
  EXPECT_THAT(names({}), ElementsAre("default/a", "default/a"));
}

TEST_F(LockctlList, OfOneLockspace) {
  ASSERT_EQ(mkdir((mount_.path() + "/other").c_str(), 0777), 0);
  const Fd a = hold("a", "EX");
  const Fd b = hold("other/b", "EX");
  EXPECT_THAT(names({}), ElementsAre("default/a", "other/b"));
  EXPECT_THAT(names({"other"}), ElementsAre("other/b"));
  const Ended none = lockctl({"list", "nosuch"});
  EXPECT_EQ(none.status, 66);
  EXPECT_THAT(none.err, HasSubstr("no lockspace nosuch"));
}

TEST_F(LockctlList, WaitingShowsOnlyWhatSomebodyWaitsFor) {
  const Fd a = hold("a", "EX");
  const Fd b = hold("b", "EX");
  Program waiter(line({"run", "b", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_THAT(names({"--waiting"}), ElementsAre("default/b"));
}

TEST_F(LockctlList, MineAndUserAndMode) {
  const Fd a = hold("a", "EX");
  Program other(line({"run", "-s", "b", "--", "sleep", "1000"}), here(4242));
  ASSERT_TRUE(eventually_held("b"));
  EXPECT_THAT(names({"--mine"}), ElementsAre("default/a"));
  EXPECT_THAT(names({"--mine"}, 4242), ElementsAre("default/b"));
  EXPECT_THAT(names({"--user", "4242"}), ElementsAre("default/b"));
  EXPECT_THAT(names({"--user", "root"}), ElementsAre("default/a"));
  EXPECT_THAT(names({"--mode", "pr"}), ElementsAre("default/b"));
  const Ended nobody = lockctl({"list", "--user", "no such user"});
  EXPECT_EQ(nobody.status, 64);
  EXPECT_EQ(lockctl({"list", "--user", "4294967296"}).status, 64);
}

TEST_F(LockctlList, MineInAUserNamespaceIsWhatItsUserIsOutside) {
  const Words as_other = {"unshare", "-U", "--map-user=4242", "--map-group=4242"};
  const auto within = [&](Words words) {
    words.insert(words.begin(), as_other.begin(), as_other.end());
    return run(words, here());
  };
  if (within({"true"}).status != 0) GTEST_SKIP() << "no user namespaces here";
  const Fd a = hold("a", "EX");
  EXPECT_EQ(within({"id", "-u"}).out, "4242\n");
  EXPECT_THAT(within(line({"list", "--mine"})).out, HasSubstr("default/a"));
}

TEST(LockctlListText, AUidIsMappedAsTheUserNamespaceMapsIt) {
  const std::string everything = "         0          0 4294967295\n";
  EXPECT_EQ(ctl::uid_outside(everything, 1000), 1000U);
  const std::string rootless =
      "         0       1000          1\n         1     100000      65536\n";
  EXPECT_EQ(ctl::uid_outside(rootless, 0), 1000U);
  EXPECT_EQ(ctl::uid_outside(rootless, 1), 100000U);
  EXPECT_EQ(ctl::uid_outside(rootless, 65536), 165535U);
  EXPECT_EQ(ctl::uid_outside(rootless, 65537), 65537U) << "is not mapped";
  EXPECT_EQ(ctl::uid_outside("", 7), 7U);
  EXPECT_EQ(ctl::uid_outside("no map", 7), 7U);
}

TEST_F(LockctlList, AllShowsPinnedNamesToo) {
  ASSERT_EQ(control("pin p").first, 0);
  EXPECT_THAT(names({}), IsEmpty());
  EXPECT_THAT(names({"--all"}), ElementsAre("default/p"));
}

TEST_F(LockctlList, SortsByEachKeyAndTheOtherWayRound) {
  const Fd b = hold("b", "PR");
  usleep(2000);  // So that since differs: its unit is a millisecond.
  const Fd a = hold("a", "EX");
  Program waiter(line({"run", "a", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_THAT(names({}), ElementsAre("default/a", "default/b"));
  EXPECT_THAT(names({"-r"}), ElementsAre("default/b", "default/a"));
  EXPECT_THAT(names({"--sort", "since"}), ElementsAre("default/b", "default/a"));
  EXPECT_THAT(names({"--sort", "waiters", "-r"}), ElementsAre("default/b", "default/a"));
  EXPECT_THAT(names({"--sort", "mode", "-r"}), ElementsAre("default/b", "default/a"));
  for (const char* key : {"name", "pid", "user", "command", "container"}) {
    EXPECT_THAT(names({"--sort", key}), ElementsAre("default/a", "default/b")) << key;
  }
  EXPECT_EQ(lockctl({"list", "--sort", "colour"}).status, 64);
}

TEST_F(LockctlList, JsonIsValidAndTheSameChoice) {
  const Fd a = hold("a", "EX note=\"\\\"x\\\"\"");
  const Fd odd = hold("\x01\xff", "EX");
  const json all = json::parse(lockctl({"list", "--json"}).out);
  EXPECT_EQ(all.at("locks").size(), 2U);
  const json none = json::parse(lockctl({"list", "--json", "--waiting"}).out);
  EXPECT_THAT(none.at("locks"), IsEmpty());
}

TEST_F(LockctlList, NoControlCharacterOfANameNoteOrCommandReachesTheTerminal) {
  const Fd a = hold("\x1b[31mred\x07", "EX");
  const Fd b = hold("turn\u202e", "EX");
  Terminal terminal(line({"list"}), here().environment);
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_THAT(terminal.written(), AllOf(HasSubstr("\\x1b[31mred\\x07"), Not(HasSubstr("\x1b[31m")),
                                        HasSubstr("turn\\u202e"), Not(HasSubstr("\x07"))));
}

TEST_F(LockctlList, NoControlCharacterReachesTheTerminalInJson) {
  const Fd a = hold(
      "c1\xc2\x9b"
      "31m",
      "EX");
  Program waiter(line({"run",
                       "c1\xc2\x9b"
                       "31m",
                       "true"}),
                 here());
  ASSERT_TRUE(eventually_waiting(1));
  for (const Words& command : std::vector<Words>{{"list"},
                                                 {"show",
                                                  "c1\xc2\x9b"
                                                  "31m"},
                                                 {"waits"}}) {
    Words words = command;
    words.emplace_back("--json");
    EXPECT_THAT(lockctl(words).out, AllOf(HasSubstr("c1\\u009b31m"), Not(HasSubstr("\xc2\x9b"))))
        << command[0];
  }
}

TEST_F(LockctlList, ANameThatItShowsCanBeGivenBack) {
  const Fd a = hold("a%2Fb%252F", "EX");
  const Words shown = names({});
  ASSERT_THAT(shown, ElementsAre("default/a%2Fb%252F"));
  EXPECT_EQ(lockctl({"show", shown[0]}).status, 0);
}

TEST_F(LockctlList, ColoursAreForTerminalsAndNoColorTurnsThemOff) {
  const Fd a = hold("a", "EX");
  auto environment = here().environment;
  environment["TERM"] = "xterm";
  environment["NO_COLOR"] = "";
  Terminal colours(line({"list"}), environment);
  EXPECT_EQ(colours.wait(), 0);
  EXPECT_THAT(colours.written(), HasSubstr("\x1b["));
  environment["NO_COLOR"] = "1";
  Terminal plain(line({"list"}), environment);
  EXPECT_EQ(plain.wait(), 0);
  EXPECT_THAT(plain.written(), AllOf(HasSubstr("default/a"), Not(HasSubstr("\x1b["))));
  EXPECT_THAT(lockctl({"list"}).out, Not(HasSubstr("\x1b["))) << "no terminal";
}

}  // namespace
}  // namespace lockfs::test
