// SPDX-License-Identifier: MIT
// lockctl run at a terminal: what it says while it waits, keys, a line that is cut.
#include <signal.h>
#include <unistd.h>

#include "tests/ctl/terminal.h"

namespace lockfs::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class LockctlRunAtATerminal : public LockctlTest {
 protected:
  static Words shell(const std::string& script) {
    return line({"run", "a", "--", "sh", "-c", script});
  }
};

TEST_F(LockctlRunAtATerminal, OnATerminalItSaysForWhomItWaits) {
  const Fd holder = hold("a", "EX");
  Terminal terminal(shell("echo begun"), here().environment);
  EXPECT_TRUE(terminal.eventually_writes("Ctrl-C gives up"));
  EXPECT_THAT(terminal.written(),
              ContainsRegex("waiting for default/a, held EX by pid " + std::to_string(getpid()) +
                            " .ctl_tests. since [0-9]"));
  terminal.press("\x03");
  EXPECT_EQ(terminal.wait(), 128 + SIGINT);
  EXPECT_TRUE(eventually_waiting(0));
}

TEST_F(LockctlRunAtATerminal, ATerminalsInterruptReachesTheCommandOnce) {
  // Perl counts each; a shell takes two in a row for one.
  const std::string script =
      "$| = 1; $SIG{INT} = sub { print \"got \", ++$n, \"\\n\" }; $SIG{TERM} = sub { exit 7 };"
      "print \"ready\\n\"; sleep 1 while 1";
  Terminal terminal(line({"run", "a", "--", "perl", "-e", script}), here().environment);
  ASSERT_TRUE(terminal.eventually_writes("ready"));
  terminal.press("\x03");
  ASSERT_TRUE(terminal.eventually_writes("got 1"));
  terminal.signal(SIGTERM);
  EXPECT_EQ(terminal.wait(), 7);
  EXPECT_THAT(terminal.written(), Not(HasSubstr("got 2")));
}

TEST_F(LockctlRunAtATerminal, ATerminalsInterruptReachesACommandWithAProcessGroupOfItsOwn) {
  for (const Words& own : {Words{"timeout", "1h"}, Words{"setsid", "-w"}}) {
    Words words = {"run", "a", "--"};
    words.insert(words.end(), own.begin(), own.end());
    words.insert(words.end(), {"sh", "-c", "echo ready; exec sleep 1000"});
    Terminal terminal(line(words), here().environment);
    ASSERT_TRUE(terminal.eventually_writes("ready"));
    terminal.press("\x03");
    EXPECT_NE(terminal.wait(), -1) << own[0];
    EXPECT_TRUE(eventually([&] { return !visible("a"); }));
  }
}

TEST_F(LockctlRunAtATerminal, ATerminalsInterruptEndsTheScriptAroundIt) {
  const std::string loop = "for i in 1 2; do echo round $i; " LOCKCTL " run a -- ";
  Terminal terminal({"bash", "-c", loop + "sleep 1000; done; echo after"}, here().environment);
  ASSERT_TRUE(terminal.eventually_writes("round 1"));
  ASSERT_TRUE(eventually_held("a"));
  terminal.press("\x03");
  EXPECT_EQ(terminal.wait(), 128 + SIGINT);
  EXPECT_THAT(terminal.written(), Not(ContainsRegex("round 2|after")));
  auto environment = here().environment;
  environment["SCRIPT"] = "trap 'exit 3' INT; echo ready; while :; do sleep 0.02; done";
  Terminal heeds({"bash", "-c", loop + "sh -c \"$SCRIPT\"; echo was $?; done"}, environment);
  ASSERT_TRUE(heeds.eventually_writes("ready"));
  heeds.press("\x03");
  EXPECT_TRUE(heeds.eventually_writes("was 3"));
}

TEST_F(LockctlRunAtATerminal, ATerminalThatHangsUpReachesTheCommand) {
  const std::string told = mount_.path() + ".told";
  Terminal terminal(
      shell("trap 'echo told >" + told + "; exit 0' HUP; echo ready; while :; do sleep 0.02; done"),
      here().environment);
  ASSERT_TRUE(terminal.eventually_writes("ready"));
  terminal.hang_up();
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_EQ(slurp(told), "told\n");
  unlink(told.c_str());
}

}  // namespace
}  // namespace lockfs::test
