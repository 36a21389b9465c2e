// SPDX-License-Identifier: MIT
// lockctl show: who holds, who has it open, what to do next.
#include "ctl/show.h"

#include <sys/file.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LockctlShow : public LockctlTest {
 protected:
  json shown(const std::string& name, uid_t uid = 0) const {
    return json::parse(lockctl({"show", "--json", name}, uid).out);
  }
};

TEST_F(LockctlShow, TellsHolderWaiterNoteAndToken) {
  const Fd a = hold("a", "EX note=\"monthly report\"");
  Program waiter(line({"run", "a", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  const Ended show = lockctl({"show", "a"});
  EXPECT_EQ(show.status, 0) << show.err;
  EXPECT_THAT(show.out, AllOf(HasSubstr("default/a: held EX"), HasSubstr("monthly report"),
                              HasSubstr("token " + xattr_of(a.get(), "user.lockfs.token")),
                              HasSubstr("pid " + std::to_string(getpid()) + " (ctl_tests)"),
                              HasSubstr("pid " + std::to_string(waiter.pid()) + " (lockctl)"),
                              HasSubstr("lockctl break default/a --why")));
}

TEST_F(LockctlShow, OfAFreeLockSaysSoAndEndsWithOne) {
  const Ended show = lockctl({"show", "nobody"});
  EXPECT_EQ(show.status, 1);
  EXPECT_THAT(show.out, AllOf(HasSubstr("default/nobody: free"), HasSubstr("Nobody holds it")));
  EXPECT_EQ(shown("nobody").at("mode"), "free");
}

TEST_F(LockctlShow, TheJsonOfAFreeLockHasTheKeysOfAHeldOne) {
  const json free = shown("fr%2Fee");
  EXPECT_EQ(free.at("lock"), "fr/ee");
  const Fd held = hold("fr%2Fee", "EX");
  const json now = shown("fr%2Fee");
  for (const auto& [key, value] : now.items()) EXPECT_TRUE(free.contains(key)) << key;
  EXPECT_EQ(now.at("lock"), free.at("lock"));
  EXPECT_TRUE(free.at("stats").contains("wait"));
}

TEST_F(LockctlShow, NamesWhoInheritedTheDescriptor) {
  const std::string file = mount_.lock("leak");
  // flock(1) takes the lock, starts a daemon that keeps the descriptor, and ends.
  // It waits until the mount has looked at who it is: that takes a millisecond.
  Program shell({"flock", file, "sh", "-c",
                 "sleep 1000 >/dev/null 2>&1 & echo $!; until grep -q 'comm: flock' '" + file +
                     "'; do :; done"});
  ASSERT_EQ(shell.wait(), 0) << shell.err();
  const std::string sleeper = std::to_string(std::stoi(shell.out()));
  const Ended show = lockctl({"show", "leak"});
  EXPECT_EQ(show.status, 0);
  EXPECT_THAT(show.out, HasSubstr("pid " + sleeper + " (sleep) inherited it from pid " +
                                  std::to_string(shell.pid()) + " (flock), which has exited"));
  EXPECT_THAT(show.out, HasSubstr("kill " + sleeper));
  const json all = shown("leak");
  ASSERT_EQ(all.at("descriptors").size(), 1U);
  const json& one = all.at("descriptors").at(0);
  EXPECT_EQ(one.at("pid"), std::stoi(sleeper));
  EXPECT_EQ(one.at("mode"), "EX");
  EXPECT_EQ(one.at("inherited_from").at("pid"), shell.pid());
  EXPECT_EQ(one.at("inherited_from").at("exited"), true);
}

TEST_F(LockctlShow, OfALeakBesideALivingHolderItAdvisesToKillTheLeakAlone) {
  const std::string file = mount_.lock("s");
  Program leak({"flock", "-s", file, "sh", "-c",
                "sleep 1000 >/dev/null 2>&1 & echo $!; until grep -q 'comm: flock' '" + file +
                    "'; do :; done"});
  ASSERT_EQ(leak.wait(), 0) << leak.err();
  const std::string sleeper = std::to_string(std::stoi(leak.out()));
  Program living(line({"run", "-s", "s", "--", "sh", "-c", "echo ready; exec sleep 1000"}), here());
  ASSERT_TRUE(living.eventually_says("ready"));
  const std::string out = lockctl({"show", "s"}).out;
  EXPECT_THAT(out, AllOf(HasSubstr("kill " + sleeper + ","),
                         HasSubstr("but pid " + sleeper + " (sleep) still has its descriptor"),
                         HasSubstr("wait for pid " + std::to_string(living.pid()) + " (lockctl)")));
}

TEST_F(LockctlShow, WithoutKcmpItStillTellsWhoInherited) {
  auto circumstances = here();
  circumstances.without_kcmp = true;
  for (const std::string mode : {"EX", "PR"}) {
    Program holder(
        line({"run", "-m", mode, mode, "--", "sh", "-c", "echo ready; sleep 1000; true"}), here());
    ASSERT_TRUE(holder.eventually_says("ready"));
    Program second(line({"run", "-m", mode, mode, "--", "sleep", "1000"}), here());
    const std::string taker = "pid " + std::to_string(holder.pid()) + " (lockctl)";
    std::string out;
    EXPECT_TRUE(eventually([&] {
      out = run(line({"show", mode}), circumstances).out;
      return out.find("(sleep) inherited it from pid ") != std::string::npos;
    })) << out;
    EXPECT_THAT(out,
                AllOf(HasSubstr(taker + " took it"), HasSubstr("(sh) inherited it from " + taker)));
  }
}

TEST_F(LockctlShow, AHolderThatBecameAnotherProgramTookIt) {
  Program one(line({"run", "-F", "-s", "a", "--", "sleep", "1000"}), here());
  Program two(line({"run", "-F", "-s", "a", "--", "sleep", "1001"}), here());
  std::string out;
  EXPECT_TRUE(eventually([&] {
    out = lockctl({"show", "a"}).out;
    return out.find("pid " + std::to_string(one.pid()) + " (sleep) took it") != std::string::npos &&
           out.find("pid " + std::to_string(two.pid()) + " (sleep) took it") != std::string::npos;
  })) << out;
}

TEST(LockctlAdvice, NamesTheDescriptorsOfAHolderThatTheMountCannotSee) {
  ctl::Picture picture =
      ctl::to_picture({{"lock", "a"}, {"mode", "EX"}, {"holders", {{{"mode", "EX"}, {"pid", 0}}}}});
  picture.holders_total = 1;
  EXPECT_THAT(ctl::advice(picture, {}), HasSubstr("Wait for a process out of sight"));
  ctl::Descriptors found;
  found.all.push_back({4711, 3, "EX", 0, "sleep", "sleep 1000", 0, ctl::Descriptor::Origin{}});
  EXPECT_THAT(ctl::advice(picture, found), HasSubstr("Wait for pid 4711 (sleep), end it"));
}

TEST_F(LockctlShow, NamesTheNearestLivingAncestorThatHasItToo) {
  Program run(line({"run", "a", "--", "sh", "-c", "echo $$; sleep 1000 & wait"}), here());
  ASSERT_TRUE(run.eventually_says("\n"));
  const std::string shell = std::to_string(std::stoi(run.out()));
  const std::string lockctl_pid = std::to_string(run.pid());
  ASSERT_TRUE(eventually([&] {
    const json all = shown("a").at("descriptors");
    return all.size() == 3 && all.at(2).at("comm") == "sleep";
  }));
  const std::string out = lockctl({"show", "a"}).out;
  EXPECT_THAT(out, AllOf(HasSubstr("pid " + lockctl_pid + " (lockctl) took it"),
                         HasSubstr("pid " + shell + " (sh) inherited it from pid " + lockctl_pid),
                         HasSubstr("(sleep) inherited it from pid " + shell + " (sh)")));
}

TEST_F(LockctlShow, WhoOpenedTheFileStandsForAFlockThatHasExited) {
  // It stops itself: a child to wait with would have the descriptor too.
  Program other(
      {"bash", "-c", "exec 9<>'" + mount_.lock("b") + "'; flock 9; echo taken; kill -STOP $$"});
  ASSERT_TRUE(other.eventually_says("taken"));
  const std::string bash = "pid " + std::to_string(other.pid()) + " (bash)";
  const std::string out = lockctl({"show", "b"}).out;
  EXPECT_THAT(out, AllOf(HasSubstr(bash + " opened it"), HasSubstr("Wait for " + bash)));
  EXPECT_THAT(lockctl({"list"}).out, HasSubstr(std::to_string(other.pid()) + "  root  bash"));
}

TEST_F(LockctlShow, EachOpenFileIsAskedForItself) {
  const Fd holder = hold("a", "EX");
  const Fd reader = open("a", O_RDONLY);
  const json all = shown("a").at("descriptors");
  ASSERT_EQ(all.size(), 1U) << "who only has it open to read holds nothing";
  EXPECT_EQ(all.at(0).at("fd"), holder.get());
}

TEST_F(LockctlShow, TellsSharedHoldersApart) {
  Program one(line({"run", "-s", "a", "--", "sleep", "1000"}), here());
  Program two(line({"run", "-s", "a", "--", "sleep", "1000"}), here());
  ASSERT_TRUE(eventually([&] {
    const json all = shown("a").at("descriptors");
    size_t sleepers = 0;
    for (const json& found : all) {
      sleepers += found.at("comm") == "sleep" ? 1U : 0U;
    }
    return sleepers == 2;
  }));
  const std::string out = lockctl({"show", "a"}).out;
  for (const Program* program : {&one, &two}) {
    const std::string pid = std::to_string(program->pid());
    EXPECT_THAT(out, AllOf(HasSubstr("pid " + pid + " (lockctl) took it"),
                           HasSubstr("(sleep) inherited it from pid " + pid + " (lockctl)")));
  }
}

TEST_F(LockctlShow, OtherUsersAreToldThatTheySeeOnlyTheirOwn) {
  const Fd a = hold("a", "EX");
  const Ended show = lockctl({"show", "a"}, 4242);
  EXPECT_EQ(show.status, 0) << show.err;
  EXPECT_THAT(show.out, AllOf(HasSubstr("cannot be seen"), HasSubstr("you are not root")));
  EXPECT_GT(shown("a", 4242).at("unseen_processes").get<int>(), 0);
  EXPECT_THAT(lockctl({"show", "a"}).out, Not(HasSubstr("cannot be seen")));
}

TEST_F(LockctlShow, AUserSeesTheirOwnProcesses) {
  Program run(line({"run", "a", "--", "sleep", "1000"}), here(4242));
  ASSERT_TRUE(eventually_held("a"));
  EXPECT_TRUE(eventually([&] { return shown("a", 4242).at("descriptors").size() == 2; }));
}

TEST_F(LockctlShow, ALingeringLockIsSaidToLinger) {
  Fd a = hold("a", "EX linger=1h");
  a.reset();
  EXPECT_TRUE(eventually([&] {
    return lockctl({"show", "a"}).out.find("Its holder has closed it") != std::string::npos;
  }));
}

TEST_F(LockctlShow, TakesPathsBelowTheMount) {
  const Fd a = hold("a", "EX");
  EXPECT_EQ(lockctl({"show", mount_.lock("a")}).status, 0);
  EXPECT_EQ(lockctl({"show", "default/a"}).status, 0);
  EXPECT_EQ(
      run({"sh", "-c", "cd '" + mount_.path() + "/default' && exec " LOCKCTL " show ./a"}).status,
      0)
      << "the mount is found by the path";
}

TEST_F(LockctlShow, RefusesWhatNamesNoLock) {
  for (const std::string bad : {"", ".", "..", ".ctl", "a/b/c", "/etc/passwd", ".lockfs/waits"}) {
    EXPECT_EQ(lockctl({"show", bad}).status, 64) << bad;
  }
  const Ended none = lockctl({"show", "nosuch/a"});
  EXPECT_EQ(none.status, 66);
  EXPECT_THAT(none.err, HasSubstr("mkdir"));
}

}  // namespace
}  // namespace lockfs::test
