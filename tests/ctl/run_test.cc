// SPDX-License-Identifier: MIT
// lockctl run: what the command gets, signals, losses, deaths.
#include <signal.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

// Says "ready", then waits for a signal, on which it does `act`; a shell does it when the sleep
// has ended.
std::string until(const std::string& signal, const std::string& act) {
  return "trap '" + act + "' " + signal + "; echo ready; while :; do sleep 0.02; done";
}

class LockctlRun : public LockctlTest {
 protected:
  Words shell(const Words& options, const std::string& script) const {
    Words words = {"run"};
    words.insert(words.end(), options.begin(), options.end());
    for (const char* word : {"a", "--", "sh", "-c"}) words.emplace_back(word);
    words.push_back(script);
    return line(words);
  }
  /// Does the process come to its end?
  static bool eventually_gone(pid_t pid) {
    const std::string words = "/proc/" + std::to_string(pid) + "/cmdline";
    return eventually([&] { return slurp(words).empty(); });
  }
  bool eventually_free() const {
    return eventually([&] { return !visible("a"); });
  }
};

TEST_F(LockctlRun, TheCommandFindsLockTokenAndDescriptor) {
  const Ended ended = run(shell({},
                                "echo $LOCKFS_LOCK; echo $LOCKFS_TOKEN; python3 -c 'import os; "
                                "print(os.getxattr(int(os.environ[\"LOCKFS_FD\"]), "
                                "\"user.lockfs.token\").decode())'"),
                          here());
  EXPECT_EQ(ended.status, 0) << ended.err;
  std::istringstream lines(ended.out);
  std::string lock;
  std::string told;
  std::string token;
  lines >> lock >> told >> token;
  EXPECT_EQ(lock, "default/a");
  EXPECT_GT(std::stoull(told), 0U);
  EXPECT_EQ(told, token) << "what it is told is what the descriptor says";
  EXPECT_FALSE(visible("a")) << "it is free again";
}

TEST_F(LockctlRun, CloseKeepsTheDescriptorFromTheCommand) {
  Words words = shell({"-o"}, "echo \"[$LOCKFS_FD]\"; ls -l /proc/self/fd");
  const Ended ended = run(words, here());
  EXPECT_THAT(ended.out, HasSubstr("[]"));
  EXPECT_THAT(ended.out, ::testing::Not(HasSubstr("default/a")));
  EXPECT_THAT(run(shell({}, "ls -l /proc/self/fd"), here()).out, HasSubstr("default/a"));
}

TEST_F(LockctlRun, TakesEachModeWithNoteAndTtl) {
  for (const std::string mode : {"CR", "cw", "PR", "PW", "EX"}) {
    const Ended ended = run(
        shell({"-m", mode, "--note", "say \"hi\" \\o/", "--ttl", "1h"}, LOCKCTL " show --json a"),
        here());
    ASSERT_EQ(ended.status, 0) << mode << ended.err;
    const auto picture = nlohmann::json::parse(ended.out);
    EXPECT_TRUE(strcasecmp(picture.at("mode").get<std::string>().c_str(), mode.c_str()) == 0);
    EXPECT_EQ(picture.at("holders").at(0).at("note"), "say \"hi\" \\o/");
    EXPECT_TRUE(picture.at("holders").at(0).at("expires").is_string());
  }
  EXPECT_EQ(run(shell({"-m", "XX"}, "true"), here()).status, 64);
  EXPECT_EQ(run(shell({"-m", "PR", "-s"}, "true"), here()).status, 64);
  const Ended wrong = run(shell({"--ttl", "soon"}, "true"), here());
  EXPECT_EQ(wrong.status, 64);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("default/a"), HasSubstr("not a duration")));
}

TEST_F(LockctlRun, SlotsAreForSoManyAtATime) {
  Program one(shell({"-m", "SLOT", "--size", "2"}, until("TERM", "exit 0")), here());
  Program two(shell({"-m", "SLOT", "--size", "2"}, until("TERM", "exit 0")), here());
  ASSERT_TRUE(one.eventually_says("ready") && two.eventually_says("ready"));
  EXPECT_EQ(run(shell({"-m", "SLOT", "--size", "2", "-n"}, "true"), here()).status, 1);
  EXPECT_EQ(run(shell({"-m", "SLOT"}, "true"), here()).status, 64);
  EXPECT_EQ(run(shell({"--size", "2"}, "true"), here()).status, 64);
}

TEST_F(LockctlRun, SaysWhoIsInTheWayUnlessQuiet) {
  const Fd holder = hold("a", "EX");
  const Ended told = run(shell({"-n"}, "true"), here());
  EXPECT_THAT(told.err, AllOf(HasSubstr("default/a"), HasSubstr(std::to_string(getpid())),
                              HasSubstr("lockctl show default/a")));
  EXPECT_EQ(run(shell({"-n", "-q"}, "true"), here()).err, "");
}

TEST_F(LockctlRun, VerboseTellsHowLongTheLockTook) {
  for (const bool forks : {true, false}) {
    const Ended ended = run(shell({"--verbose", forks ? "-n" : "-F"}, "echo done"), here());
    EXPECT_EQ(ended.status, 0) << ended.err;
    EXPECT_EQ(ended.out, "done\n") << "what it says is not the command's";
    EXPECT_THAT(ended.err, MatchesRegex("lockctl: got default/a after [0-9]+\\.[0-9]{6} s\n"));
  }
  Fd holder = hold("a", "EX");
  Program program(shell({"--verbose"}, "true"), here());
  ASSERT_TRUE(eventually_waiting(1));
  usleep(100000);
  EXPECT_EQ(program.err(), "") << "it has not got it yet";
  holder.reset();
  EXPECT_EQ(program.wait(), 0);
  const std::string lead = "lockctl: got default/a after ";
  ASSERT_THAT(program.err(), StartsWith(lead));
  EXPECT_GE(std::stod(program.err().substr(lead.size())), 0.1) << "the wait is a part of it";
  EXPECT_EQ(run(shell({"--verbose", "-q"}, "true"), here()).status, 64);
}

TEST_F(LockctlRun, PassesSignalsOn) {
  const std::vector<std::pair<int, std::string>> signals = {{SIGTERM, "TERM"}, {SIGINT, "INT"},
                                                            {SIGHUP, "HUP"},   {SIGQUIT, "QUIT"},
                                                            {SIGUSR1, "USR1"}, {SIGUSR2, "USR2"}};
  for (const auto& [number, name] : signals) {
    Program program(shell({}, until(name, "echo got " + name + "; exit 7")), here());
    ASSERT_TRUE(program.eventually_says("ready")) << name;
    program.signal(number);
    EXPECT_EQ(program.wait(), 7) << name;
    EXPECT_THAT(program.out(), HasSubstr("got " + name));
  }
}

TEST_F(LockctlRun, PassesSignalsOnWhileTheDaemonIsStopped) {
  // With -o: who has the lock open ends no sooner than the daemon hears of it.
  Program program(shell({"-o"}, until("TERM", "echo told; exit 7")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  kill(mount_.daemon(), SIGSTOP);
  program.signal(SIGTERM);
  EXPECT_TRUE(program.eventually_says("told"));
  kill(mount_.daemon(), SIGCONT);
  EXPECT_EQ(program.wait(), 7);
}

TEST_F(LockctlRun, AsTheFirstProcessOfAContainerItHeedsSignalsWhileItWaits) {
  const Fd holder = hold("a", "EX");
  const Words alone = {
      "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "exec " LOCKCTL " run a -- true"};
  Program program(alone, here());
  if (!eventually_waiting(1)) GTEST_SKIP() << "no pid namespaces here: " << program.err();
  const std::string tasks = "/proc/" + std::to_string(program.pid()) + "/task/";
  const pid_t waiter = std::stoi(slurp(tasks + std::to_string(program.pid()) + "/children"));
  kill(waiter, SIGTERM);
  ASSERT_TRUE(eventually([&] { return program.has_ended(); }));
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_TRUE(eventually_waiting(0));
}

TEST_F(LockctlRun, TheLockIsNeverTheCommandsStandardOutput) {
  const std::string place = mount_.path() + ".seen";
  const Ended ended = run(
      {"sh", "-c",
       LOCKCTL " run a -- sh -c 'echo UN; echo UN >&0; " LOCKCTL " run -n a -- true; echo $? >" +
           place + "' <&- >&-"},
      here());
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(slurp(place), "1\n") << "it is still held";
  unlink(place.c_str());
}

TEST_F(LockctlRun, TheCommandsOrphansDoNotHideItsStatus) {
  EXPECT_EQ(run(shell({}, "(true &); (sleep 0.05 &); sleep 0.1; exit 5"), here()).status, 5);
}

TEST_F(LockctlRun, ASignalWhileItWaitsEndsItAndTheCommandNeverBegins) {
  const Fd holder = hold("a", "EX");
  Program program(shell({}, "echo begun"), here());
  ASSERT_TRUE(eventually_waiting(1));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_TRUE(eventually_waiting(0));
  EXPECT_EQ(program.out(), "");
}

TEST_F(LockctlRun, SignalsAtAnyMomentEndItOrReachTheCommand) {
  for (int i = 0; i < 200; ++i) {
    Program program(shell({}, "exec sleep 1000"), here());
    usleep(static_cast<useconds_t>(i * 50));
    program.signal(SIGTERM);
    ASSERT_EQ(program.wait(), 128 + SIGTERM) << i;
    ASSERT_TRUE(eventually_free()) << i << ": something is left that holds it";
  }
}

TEST_F(LockctlRun, StoppedAndContinuedItKeepsWaiting) {
  Fd holder = hold("a", "EX");
  Program program(shell({"-w", "100"}, "echo begun"), here());
  ASSERT_TRUE(eventually_waiting(1));
  program.signal(SIGSTOP);
  program.signal(SIGCONT);
  holder.reset();
  EXPECT_EQ(program.wait(), 0) << program.err();
  EXPECT_EQ(program.out(), "begun\n");
}

TEST_F(LockctlRun, AnIgnoredSigchldDoesNotHideTheStatus) {
  auto circumstances = here();
  circumstances.ignored = {SIGCHLD};
  EXPECT_EQ(run(shell({}, "exit 6"), circumstances).status, 6);
}

TEST_F(LockctlRun, KilledItLeavesTheLockToItsCommandAsLongAsThatRuns) {
  Program program(shell({}, "echo $$; exec sleep 1000"), here());
  ASSERT_TRUE(program.eventually_says("\n"));
  const pid_t command = std::stoi(program.out());
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  EXPECT_EQ(run(shell({"-n"}, "true"), here()).status, 1) << "it is still held";
  kill(command, SIGKILL);
  EXPECT_TRUE(eventually_free());
}

TEST_F(LockctlRun, KilledWithCloseItsCommandIsEndedToo) {
  Program program(shell({"-o"}, until("TERM", "echo told; exit 0")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  EXPECT_TRUE(program.eventually_says("told"));
  EXPECT_TRUE(eventually_free());
}

TEST_F(LockctlRun, ABrokenLockEndsTheCommandByTerm) {
  Program program(shell({}, until("TERM", "echo told; exit 0")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  ASSERT_EQ(control("break a \"it hangs\"").first, 0);
  EXPECT_EQ(program.wait(), 79);
  EXPECT_THAT(program.out(), HasSubstr("told"));
  EXPECT_THAT(program.err(), AllOf(HasSubstr("default/a was lost"), HasSubstr("it hangs")));
}

TEST_F(LockctlRun, ABrokenLockEndsTheCommandByKillIfSaid) {
  Program program(shell({"--onlost", "kill"}, until("TERM", "echo told; exit 0")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  ASSERT_EQ(control("break a").first, 0);
  EXPECT_EQ(program.wait(), 79);
  EXPECT_THAT(program.out(), ::testing::Not(HasSubstr("told")));
}

TEST_F(LockctlRun, ALossReachesAllThatTheCommandHasStarted) {
  for (const std::string how : {"kill", "term"}) {
    // A child, and an orphan that lockctl alone can know.
    Program program(shell({"--onlost", how},
                          "sleep 1000 & echo $!; (setsid sleep 1000 & echo $!); echo ready; wait"),
                    here());
    ASSERT_TRUE(program.eventually_says("ready"));
    std::istringstream pids(program.out());
    pid_t child = 0;
    pid_t orphan = 0;
    pids >> child >> orphan;
    ASSERT_EQ(control("break a").first, 0);
    EXPECT_EQ(program.wait(), 79) << how;
    EXPECT_TRUE(eventually_gone(child)) << how;
    EXPECT_TRUE(eventually_gone(orphan)) << how;
    kill(orphan, SIGKILL);
  }
}

TEST_F(LockctlRun, ALossLeavesAloneWhoWasThereBefore) {
  Program program({"sh", "-c",
                   "sleep 1000 & echo $!; exec " LOCKCTL
                   " run --onlost kill a -- sh -c 'echo ready; sleep 1000; true'"},
                  here());
  ASSERT_TRUE(program.eventually_says("ready"));
  const pid_t before = std::stoi(program.out());
  ASSERT_EQ(control("break a").first, 0);
  EXPECT_EQ(program.wait(), 79);
  EXPECT_THAT(slurp("/proc/" + std::to_string(before) + "/cmdline"), HasSubstr("sleep"));
}

TEST_F(LockctlRun, ABrokenLockLeavesTheCommandAloneIfSaid) {
  Program program(shell({"--onlost", "none"}, until("USR1", "exit 5")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  ASSERT_EQ(control("break a").first, 0);
  EXPECT_TRUE(program.eventually_says("goes on without it"));
  program.signal(SIGUSR1);
  EXPECT_EQ(program.wait(), 5);
}

TEST_F(LockctlRun, WithoutAForkTheMountTellsTheCommandOfALoss) {
  Program program(shell({"-F"}, until("TERM", "echo told; exit 8")), here());
  ASSERT_TRUE(program.eventually_says("ready"));
  ASSERT_EQ(control("break a").first, 0);
  EXPECT_EQ(program.wait(), 8);
  EXPECT_THAT(program.out(), HasSubstr("told"));
}

TEST_F(LockctlRun, TheEndOfItsTtlIsALoss) {
  Program program(shell({"--ttl", "200ms"}, until("TERM", "echo told; exit 0")), here());
  EXPECT_EQ(program.wait(), 79);
  EXPECT_THAT(program.err(), HasSubstr("default/a was lost"));
}

TEST_F(LockctlRun, SaysWhyItIsLostHoweverLongThePictureIs) {
  std::vector<Fd> others;
  const std::string note(3000, 'n');
  for (int i = 0; i < 60; ++i) others.push_back(hold("a", "PR note=" + note));
  const Ended ended = run(shell({"-s", "--ttl", "50ms"}, "exec sleep 1000"), here());
  EXPECT_EQ(ended.status, 79);
  EXPECT_THAT(ended.err, HasSubstr("ttl"));
}

TEST_F(LockctlRun, TheEndOfTheMountIsALoss) {
  const Mount mount;
  auto circumstances = here();
  circumstances.environment["LOCKFS_MOUNT"] = mount.path();
  Program program(shell({}, until("TERM", "echo told; exit 0")), circumstances);
  ASSERT_TRUE(program.eventually_says("ready"));
  kill(mount.daemon(), SIGKILL);
  EXPECT_EQ(program.wait(), 79);
  EXPECT_EQ(run(shell({}, "true"), circumstances).status, 69);
}

TEST_F(LockctlRun, ALossAtAnyMomentEndsIt) {
  for (int i = 0; i < 30; ++i) {
    const Ended ended =
        run(shell({"--ttl", std::to_string(i / 3 + 1) + "ms"}, "exec sleep 1000"), here());
    ASSERT_EQ(ended.status, 79) << ended.err;
    ASSERT_TRUE(eventually_free());
  }
}

TEST_F(LockctlRun, NeedsACommandAndALockspace) {
  EXPECT_EQ(lockctl({"run", "a"}).status, 64);
  EXPECT_EQ(lockctl({"run", "a", "--"}).status, 64);
  EXPECT_EQ(lockctl({"run", "-c", "true", "a", "--", "true"}).status, 64);
  EXPECT_EQ(lockctl({"run", "-c", "exit 3", "a"}).status, 3);
  const Ended none = lockctl({"run", "nosuch/a", "--", "true"});
  EXPECT_EQ(none.status, 66);
  EXPECT_THAT(none.err, HasSubstr("mkdir"));
}

TEST_F(LockctlRun, AUserWhoMayNotLockThereIsToldSo) {
  ASSERT_EQ(mkdir((mount_.path() + "/mine").c_str(), 0700), 0);
  const Ended ended = lockctl({"run", "mine/a", "--", "true"}, 4242);
  EXPECT_EQ(ended.status, 77);
  EXPECT_THAT(ended.err, HasSubstr("mine/a"));
  EXPECT_EQ(lockctl({"run", "a", "--", "true"}, 4242).status, 0);
}

}  // namespace
}  // namespace lockfs::test
