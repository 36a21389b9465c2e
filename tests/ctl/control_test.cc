// SPDX-License-Identifier: MIT
// lockctl break, pin, unpin, alloc, free; ready; the command line itself.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/ctl/terminal.h"

namespace lockfs::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using LockctlBreak = LockctlTest;
using LockctlControl = LockctlTest;
using LockctlReady = LockctlTest;
using LockctlLine = LockctlTest;

TEST_F(LockctlBreak, WithYesBreaksAndSaysWhy) {
  const Fd a = hold("a", "EX");
  const Ended ended = lockctl({"break", "a", "--why", "it \"hangs\"", "--yes"});
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("default/a is broken; 1 had it"));
  EXPECT_EQ(write_command(a.get(), "EX"), ESTALE);
  EXPECT_THAT(value_of(a.get(), "this.error"), HasSubstr("it \"hangs\""));
}

TEST_F(LockctlBreak, WithoutATerminalItRefusesUnlessYesIsThere) {
  const Fd a = hold("a", "EX");
  const Ended ended = lockctl({"break", "a", "--why", "x"});
  EXPECT_EQ(ended.status, 64);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("--yes"), HasSubstr(std::to_string(getpid()))));
  EXPECT_EQ(mode_of(a.get()), "EX");
}

TEST_F(LockctlBreak, OnATerminalItAsksFirst) {
  const Fd a = hold("a", "EX");
  for (const std::string answer : {"n\n", "\n", "maybe\n", "\x04"}) {
    Terminal no(line({"break", "a", "--why", "x"}), here().environment);
    ASSERT_TRUE(no.eventually_writes("Break it? [y/N]"));
    EXPECT_THAT(no.written(), HasSubstr("held EX by pid " + std::to_string(getpid())));
    no.press(answer);
    EXPECT_EQ(no.wait(), 1);
    EXPECT_EQ(mode_of(a.get()), "EX");
  }
  Terminal yes(line({"break", "a", "--why", "x"}), here().environment);
  ASSERT_TRUE(yes.eventually_writes("Break it? [y/N]"));
  yes.press("y\n");
  EXPECT_EQ(yes.wait(), 0);
  EXPECT_EQ(mode_of(a.get()), "none");
}

TEST_F(LockctlBreak, DoesNotBreakWhatSomebodyElseHoldsByThen) {
  Fd a = hold("a", "EX");
  Terminal terminal(line({"break", "a", "--why", "x"}), here().environment);
  ASSERT_TRUE(terminal.eventually_writes("Break it? [y/N]"));
  a.reset();
  const Fd next = hold("a", "EX");
  terminal.press("y\n");
  EXPECT_EQ(terminal.wait(), 1);
  EXPECT_THAT(terminal.written(), HasSubstr("another holder"));
  EXPECT_EQ(mode_of(next.get()), "EX");
}

TEST_F(LockctlBreak, IsForRootAndTheOwner) {
  const Fd a = hold("a", "EX");
  const Ended ended = lockctl({"break", "a", "--why", "x", "--yes"}, 4242);
  EXPECT_EQ(ended.status, 77);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("default/a"), HasSubstr("only root and the lockspace")));
}

TEST_F(LockctlBreak, OfWhatIsNotHeldSaysSo) {
  EXPECT_EQ(lockctl({"break", "a", "--why", "x", "--yes"}).status, 1);
  EXPECT_EQ(lockctl({"break", "a", "--why", "x"}).status, 1);
  EXPECT_EQ(lockctl({"break", "a", "--yes"}).status, 64) << "a reason is needed";
}

TEST_F(LockctlControl, PinsAndUnpins) {
  EXPECT_EQ(lockctl({"pin", "two words"}).status, 0);
  EXPECT_TRUE(visible("default/two words"));
  EXPECT_EQ(lockctl({"unpin", "two words"}).status, 0);
  EXPECT_FALSE(visible("default/two words"));
  const Ended again = lockctl({"unpin", "two words"});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("not pinned"));
}

TEST_F(LockctlControl, AllocatesAndFreesNumbers) {
  ASSERT_EQ(mkdir((mount_.path() + "/other").c_str(), 0777), 0);
  EXPECT_EQ(lockctl({"alloc"}).out, "0\n");
  EXPECT_EQ(lockctl({"alloc", "7"}).out, "7\n");
  EXPECT_EQ(lockctl({"alloc", "--lockspace", "other"}).out, "0\n");
  const Ended taken = lockctl({"alloc", "7"});
  EXPECT_EQ(taken.status, 1);
  EXPECT_THAT(taken.err, HasSubstr("7 is taken"));
  EXPECT_EQ(lockctl({"free", "7"}).status, 0);
  EXPECT_EQ(lockctl({"free", "7"}).status, 1);
  EXPECT_EQ(lockctl({"free", "-l", "other", "0"}).status, 0);
  EXPECT_EQ(lockctl({"alloc", "seven"}).status, 64);
  EXPECT_EQ(lockctl({"alloc", "-l", "nosuch"}).status, 66);
  ASSERT_EQ(control("capacity 1").first, 0);
  EXPECT_EQ(lockctl({"alloc"}).status, 75) << "all are taken";
}

TEST_F(LockctlReady, IsReadyWhenTheMountAnswers) {
  EXPECT_EQ(lockctl({"ready"}).status, 0);
  EXPECT_EQ(lockctl({"ready", "-w", "0"}).status, 0);
}

TEST_F(LockctlReady, WaitsForAMountThatIsNotThereYet) {
  const std::string place = mount_.path() + ".later";
  ASSERT_EQ(mkdir(place.c_str(), 0755), 0);
  Program ready(line({"--mount", place, "ready", "-w", "60"}), here());
  Program daemon({lockfs_binary(), "-f", "memory:", place});
  EXPECT_EQ(ready.wait(), 0) << ready.err();
  daemon.signal(SIGTERM);
  daemon.wait();
  rmdir(place.c_str());
}

TEST_F(LockctlReady, GivesUpInTimeEvenIfTheDaemonIsStopped) {
  const Ended none = lockctl({"--mount", "/nonexistent", "ready", "-w", "0.1"});
  EXPECT_EQ(none.status, 69);
  EXPECT_THAT(none.err, HasSubstr("/nonexistent"));
  kill(mount_.daemon(), SIGSTOP);
  const Ended stopped = lockctl({"ready", "-w", "0.3"});
  kill(mount_.daemon(), SIGCONT);
  EXPECT_EQ(stopped.status, 69);
  EXPECT_THAT(stopped.err, HasSubstr("does not answer"));
}

TEST_F(LockctlLine, EachCommandHasHelpInWords) {
  const Words commands = {"list", "show",  "waits", "top",  "run",    "break",
                          "pin",  "unpin", "alloc", "free", "events", "ready"};
  const Ended all = lockctl({"--help"});
  EXPECT_EQ(all.status, 0);
  for (const std::string& command : commands) {
    EXPECT_THAT(all.out, HasSubstr("\n  " + command + " "));
    const Ended help = lockctl({command, "--help"});
    EXPECT_EQ(help.status, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Usage: lockctl " + command));
  }
  EXPECT_EQ(lockctl({"--version"}).out.substr(0, 8), "lockctl ");
}

TEST_F(LockctlLine, MistakesEndWith64AndPointToTheHelp) {
  for (const Words& wrong : std::vector<Words>{{},
                                               {"nonsense"},
                                               {"show"},
                                               {"list", "--nonsense"},
                                               {"list", "--mode", "XX"},
                                               {"top", "--delay", "0"},
                                               {"top", "--delay", "nan"},
                                               {"ready", "-w", "nan"},
                                               {"run", "-w", "nan", "a", "true"}}) {
    const Ended ended = lockctl(wrong);
    EXPECT_EQ(ended.status, 64);
    EXPECT_THAT(ended.err, HasSubstr("--help"));
  }
}

TEST_F(LockctlLine, UsageSaysWhatIsNeeded) {
  EXPECT_THAT(lockctl({"--help"}).out, HasSubstr("Usage: lockctl [OPTIONS] COMMAND\n"));
  EXPECT_THAT(lockctl({"break", "--help"}).out,
              HasSubstr("Usage: lockctl break [OPTIONS] --why TEXT name\n"));
}

TEST_F(LockctlLine, OutputThatIsLostIsAFailure) {
  const auto into_full = [&](const std::string& words) {
    return run({"sh", "-c", LOCKCTL " " + words + " >/dev/full"}, here());
  };
  for (const std::string words : {"list", "show a --json", "waits", "events", "--version"}) {
    EXPECT_EQ(into_full(words).status, 71) << words;
  }
  const Ended alloc = into_full("alloc");
  EXPECT_EQ(alloc.status, 71);
  EXPECT_THAT(alloc.err, HasSubstr("lockctl free -l default 0"));
}

TEST_F(LockctlLine, TheMountMayBeNamedBehindTheCommandButNotBehindRunsName) {
  const Circumstances bare{{{"LOCKFS_MOUNT", "/nonexistent"}}};
  EXPECT_EQ(run(line({"list", "--mount", mount_.path()}), bare).status, 0);
  EXPECT_EQ(run(line({"run", "--mount", mount_.path(), "a", "--", "true"}), bare).status, 0);
  EXPECT_EQ(lockctl({"run", "a", "echo", "--mount", "x", "-n", "--"}).out, "--mount x -n --\n");
  EXPECT_EQ(lockctl({"list", "default", "more"}).status, 64);
}

TEST_F(LockctlLine, ALockMayBeCalledLikeACommand) {
  EXPECT_EQ(lockctl({"run", "list", "--", "true"}).status, 0);
  EXPECT_EQ(lockctl({"run", "top", "sh", "-c", "exit 4"}).status, 4);
  EXPECT_EQ(lockctl({"show", "show"}).status, 1);
}

}  // namespace
}  // namespace lockfs::test
