// SPDX-License-Identifier: MIT
// lockctl top, in a pseudo-terminal.
#include <signal.h>
#include <sys/stat.h>

#include <cstring>

#include "tests/ctl/terminal.h"

namespace lockfs::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class LockctlTop : public LockctlTest {
 protected:
  std::map<std::string, std::string> vt52() const {
    auto environment = here().environment;
    environment["TERM"] = "vt52";
    return environment;
  }
  Words top(const Words& options = {}) const {
    Words words = {"top", "--delay", "0.1"};
    words.insert(words.end(), options.begin(), options.end());
    return line(words);
  }
  /// Does lock `first` come to stand above lock `second`?
  static bool eventually_above(Terminal& terminal, const std::string& first,
                               const std::string& second) {
    return eventually([&] {
      const auto lines = terminal.screen();
      const auto at = [&](const std::string& name) {
        for (size_t i = 0; i < lines.size(); ++i) {
          if (lines[i].starts_with(name + " ")) return i;
        }
        return size_t(0);
      };
      return at(first) != 0 && at(first) < at(second);
    });
  }
};

TEST_F(LockctlTop, ShowsContendedLocksFirst) {
  const Fd a = hold("a", "EX");
  const Fd b = hold("b", "EX");
  Program waiter(line({"run", "b", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  Terminal terminal(top(), vt52());
  EXPECT_TRUE(eventually_above(terminal, "default/b", "default/a"));
  EXPECT_THAT(terminal.line_with("NAME"), AllOf(HasSubstr("WAITERS"), HasSubstr("MEAN WAIT"),
                                                HasSubstr("HELD"), HasSubstr("COMMAND")));
  EXPECT_THAT(terminal.line_with("lockctl top"), HasSubstr("2 held, 1 waiting"));
  EXPECT_THAT(terminal.line_with("default/b"), HasSubstr("ctl_tests"));
}

TEST_F(LockctlTop, FollowsWhatHappens) {
  Terminal terminal(top(), vt52());
  ASSERT_TRUE(terminal.eventually_shows("0 held"));
  Fd a = hold("a", "EX");
  EXPECT_TRUE(terminal.eventually_shows("default/a"));
  a.reset();
  EXPECT_TRUE(eventually([&] { return terminal.line_with("default/a").empty(); }));
}

TEST_F(LockctlTop, KeysChangeTheOrder) {
  const Fd a = hold("a", "EX");
  const Fd b = hold("b", "EX");
  Program waiter(line({"run", "b", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  Terminal terminal(top(), vt52());
  ASSERT_TRUE(eventually_above(terminal, "default/b", "default/a"));
  terminal.press("n");
  EXPECT_TRUE(eventually_above(terminal, "default/a", "default/b"));
  EXPECT_THAT(terminal.line_with("lockctl top"), HasSubstr("by NAME"));
  terminal.press("r");
  EXPECT_TRUE(eventually_above(terminal, "default/b", "default/a"));
  terminal.press("w");
  EXPECT_TRUE(terminal.eventually_shows("by WAITERS"));
  terminal.press(
      "\x1b"
      "D");  // Left: MODE, and equals by waiters.
  EXPECT_TRUE(terminal.eventually_shows("by MODE"));
  terminal.press(
      "\x1b"
      "D");
  EXPECT_TRUE(terminal.eventually_shows("by NAME"));
  EXPECT_TRUE(eventually_above(terminal, "default/a", "default/b"));
  terminal.press(
      "\x1b"
      "C");
  EXPECT_TRUE(terminal.eventually_shows("by MODE"));
}

TEST_F(LockctlTop, BeginsWithTheColumnThatIsAskedFor) {
  Terminal terminal(top({"--sort", "held"}), vt52());
  EXPECT_TRUE(terminal.eventually_shows("by HELD"));
}

TEST_F(LockctlTop, PausesAndGoesOn) {
  Terminal terminal(top(), vt52());
  ASSERT_TRUE(terminal.eventually_shows("0 held"));
  terminal.press("p");
  ASSERT_TRUE(terminal.eventually_shows("PAUSED"));
  const Fd a = hold("a", "EX");
  terminal.press("n");  // It still listens.
  ASSERT_TRUE(terminal.eventually_shows("by NAME"));
  EXPECT_EQ(terminal.line_with("default/a"), "");
  terminal.press("p");
  EXPECT_TRUE(terminal.eventually_shows("default/a"));
}

TEST_F(LockctlTop, HelpShowsTheKeys) {
  Terminal terminal(top(), vt52());
  ASSERT_TRUE(terminal.eventually_shows("0 held"));
  terminal.press("?");
  EXPECT_TRUE(terminal.eventually_shows("pause, and go on"));
  terminal.press("?");
  EXPECT_TRUE(terminal.eventually_shows("NAME"));
}

TEST_F(LockctlTop, OfOneLockspace) {
  ASSERT_EQ(mkdir((mount_.path() + "/other").c_str(), 0777), 0);
  const Fd a = hold("a", "EX");
  const Fd b = hold("other/b", "EX");
  Terminal terminal(top({"other"}), vt52());
  ASSERT_TRUE(terminal.eventually_shows("other/b"));
  EXPECT_EQ(terminal.line_with("default/a"), "");
  Terminal none(top({"nosuch"}), vt52());
  EXPECT_EQ(none.wait(), 66);
  EXPECT_THAT(none.written(), HasSubstr("no lockspace nosuch"));
}

TEST_F(LockctlTop, AResizeDrawsAgain) {
  std::vector<Fd> held;
  for (char c = 'a'; c < 'a' + 12; ++c) held.push_back(hold(std::string(1, c), "EX"));
  Terminal terminal(top({"--sort", "name"}), vt52(), 8, 140);
  ASSERT_TRUE(terminal.eventually_shows("default/f"));
  EXPECT_EQ(terminal.line_with("default/g"), "");
  terminal.resize(20, 60);
  ASSERT_TRUE(terminal.eventually_shows("default/l"));
  EXPECT_EQ(terminal.line_with("MEAN WAIT"), "") << "what does not fit is cut";
  for (const std::string& shown : terminal.screen()) EXPECT_LE(shown.size(), 60U);
  terminal.resize(5, 140);
  ASSERT_TRUE(terminal.eventually_shows("MEAN WAIT"));
}

TEST_F(LockctlTop, ScrollsWithTheArrows) {
  std::vector<Fd> held;
  for (char c = 'a'; c < 'a' + 12; ++c) held.push_back(hold(std::string(1, c), "EX"));
  Terminal terminal(top({"--sort", "name"}), vt52(), 8, 140);
  ASSERT_TRUE(terminal.eventually_shows("default/f"));
  terminal.press(
      "\x1b"
      "B");
  EXPECT_TRUE(terminal.eventually_shows("default/g"));
  EXPECT_TRUE(eventually([&] { return terminal.line_with("default/a").empty(); }));
  terminal.press(
      "\x1b"
      "A");
  EXPECT_TRUE(terminal.eventually_shows("default/a"));
}

TEST_F(LockctlTop, NothingThatATerminalActsUponIsShown) {
  const Fd odd = hold("x\x1b]0;title\x07", "EX");
  Terminal terminal(top(), vt52());
  EXPECT_TRUE(terminal.eventually_shows("default/x\\x1b]0;title"));
}

class LockctlTopEnds : public LockctlTop, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(, LockctlTopEnds, ::testing::Values(0, SIGTERM, SIGINT, SIGHUP),
                         [](const auto& tested) {
                           return tested.param == 0 ? "q" : sigabbrev_np(tested.param);
                         });

TEST_P(LockctlTopEnds, TheTerminalIsAsItWas) {
  auto environment = here().environment;
  environment["TERM"] = "xterm";
  const Terminal untouched({"sleep", "1000"}, environment);
  const termios before = untouched.modes();
  Terminal own(line({"top"}), environment);
  ASSERT_TRUE(own.eventually_writes("WAITERS"));
  EXPECT_EQ(own.modes().c_lflag & unsigned(ICANON | ECHO), 0U);
  if (GetParam() == 0) {
    own.press("q");
  } else {
    own.signal(GetParam());
  }
  EXPECT_EQ(own.wait(), GetParam() == 0 ? 0 : 128 + GetParam());
  const termios after = own.modes();
  EXPECT_EQ(after.c_lflag, before.c_lflag);
  EXPECT_EQ(after.c_iflag, before.c_iflag);
  EXPECT_EQ(after.c_oflag, before.c_oflag);
  EXPECT_THAT(own.written(), HasSubstr("\x1b[?1049l")) << "the screen from before is back";
  EXPECT_THAT(own.written(), HasSubstr("\x1b[?12l\x1b[?25h")) << "and the cursor";
}

TEST_F(LockctlTop, KeysWorkWhileTheMountHangs) {
  Terminal terminal(top(), vt52(), 24, 80);
  ASSERT_TRUE(terminal.eventually_shows("lockctl top"));
  kill(mount_.daemon(), SIGSTOP);
  EXPECT_TRUE(terminal.eventually_shows("THE MOUNT DOES NOT ANSWER"));
  terminal.press("q");
  EXPECT_EQ(terminal.wait(), 0);
  kill(mount_.daemon(), SIGCONT);
}

TEST_F(LockctlTop, TheEndOfTheMountEndsItWithWords) {
  Terminal terminal(top(), vt52());
  ASSERT_TRUE(terminal.eventually_shows("0 held"));
  kill(mount_.daemon(), SIGKILL);
  EXPECT_EQ(terminal.wait(), 69);
  EXPECT_THAT(terminal.written(), HasSubstr("has ended"));
}

TEST_F(LockctlTop, NeedsATerminal) {
  const Ended ended = lockctl({"top"});
  EXPECT_EQ(ended.status, 64);
  EXPECT_THAT(ended.err, HasSubstr("lockctl list"));
}

}  // namespace
}  // namespace lockfs::test
