// SPDX-License-Identifier: MIT
// A lock within a lock, taken by scripts: what one process holds, its child waits with.
#include <sys/file.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class LockctlNested : public LockctlTest {
 protected:
  /// Takes `outer`, then, when both outer ones are held, waits for `inner`.
  Words below(const std::string& outer, const std::string& inner, bool by_flock) const {
    const Words go = {
        "sh", "-c",
        "until [ -e " + mount_.lock("go") + " ]; do sleep 0.01; done; " +
            (by_flock ? "flock " + mount_.lock(inner) : std::string(LOCKCTL) + " run " + inner) +
            " true"};
    Words words = by_flock ? Words{"flock", mount_.lock(outer)} : line({"run", outer, "--"});
    words.insert(words.end(), go.begin(), go.end());
    return words;
  }
};

TEST_F(LockctlNested, ScriptsThatWaitForEachOtherAreADeadlock) {
  for (const bool by_flock : {false, true}) {
    ASSERT_TRUE(eventually([&] { return !visible("a") && !visible("b"); }));
    const Program one(below("a", "b", by_flock), here());
    const Program other(below("b", "a", by_flock), here());
    ASSERT_TRUE(eventually([&] { return visible("a") && visible("b"); }));
    const Fd go = hold("go", "EX");
    ASSERT_TRUE(eventually_waiting(2));
    const std::string out = lockctl({"waits"}).out;
    EXPECT_THAT(out, AllOf(ContainsRegex("waits for default/a .*DEADLOCK"),
                           ContainsRegex("waits for default/b .*DEADLOCK")))
        << out;
    const json all = json::parse(lockctl({"waits", "--json"}).out);
    for (const json& wait : all.at("waits")) {
      EXPECT_TRUE(wait.at("cycle"));
      EXPECT_TRUE(wait.at("waits_for").at(0).at("inherited"));
    }
    EXPECT_THAT(lockctl({"waits", "--dot"}).out, HasSubstr("color=red"));
  }
}

TEST_F(LockctlNested, WhoWaitsBesideAnotherIsNoDeadlock) {
  const Fd holder = hold("b", "EX");
  const Fd go = hold("go", "EX");
  Program script(below("a", "b", true), here());
  ASSERT_TRUE(eventually_waiting(1));
  Program waiter(line({"run", "a", "true"}), here());
  ASSERT_TRUE(eventually_waiting(2));
  const std::string out = lockctl({"waits"}).out;
  EXPECT_THAT(out, Not(HasSubstr("DEADLOCK")));
  EXPECT_THAT(out, ContainsRegex("waits for default/b .*\n   └─ .*waits for default/a"))
      << "who waits for `a` stands below the script's wait for `b`: " << out;
}

TEST_F(LockctlNested, AFlockBelowAFlockOfTheSameLockIsADeadlock) {
  const Fd go = hold("go", "EX");
  Program script(below("a", "a", true), here());
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_THAT(lockctl({"waits"}).out, ContainsRegex("waits for default/a .*DEADLOCK"));
}

TEST_F(LockctlNested, AConversionIsNoDeadlockByItself) {
  const Fd reader = hold("a", "PR");
  Program converts({"python3", "-c",
                    "import os,sys; f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); "
                    "os.write(f,b'PR'); os.write(f,b'EX timeout=20s')",
                    mount_.lock("a")});
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_THAT(lockctl({"waits"}).out, Not(HasSubstr("DEADLOCK")));
}

TEST_F(LockctlNested, RunBelowRunOfTheSameLockIsRefused) {
  const Words inner = {LOCKCTL, "run", "a", "true"};
  Words words = {"run", "a", "--"};
  words.insert(words.end(), inner.begin(), inner.end());
  const Ended ended = lockctl(words);
  EXPECT_EQ(ended.status, 75);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("default/a"), HasSubstr("deadlock"), HasSubstr("EX")));
  EXPECT_EQ(lockctl({"run", "-s", "a", "--", LOCKCTL, "run", "-s", "a", "true"}).status, 0);
  EXPECT_EQ(lockctl({"run", "-s", "a", "--", LOCKCTL, "run", "a", "true"}).status, 75);
  EXPECT_EQ(lockctl({"run", "a", "--", LOCKCTL, "run", "b", "true"}).status, 0);
  EXPECT_EQ(lockctl({"run", "a", "--", LOCKCTL, "run", "-n", "a", "true"}).status, 1);
}

TEST_F(LockctlNested, RunBelowRunWaitsForWhoDoesNotWaitForTheOuterOne) {
  struct Case {
    const char* held;  // By somebody else.
    Words outer;
    Words inner;
  };
  const std::vector<Case> cases = {{"EX", {"-m", "NL"}, {"-x"}},
                                   {"PR", {"-m", "NL"}, {"-m", "CW"}},
                                   {"CW", {"-m", "CR"}, {"-s"}},
                                   {"PW", {"-m", "CR"}, {"-m", "PW"}},
                                   {"SLOT size=2", {"-m", "SLOT", "--size", "2"}, {}}};
  for (const auto& [held, outer, inner] : cases) {
    std::optional<Fd> other;
    other.emplace(hold("a", held));
    Words words = {"run"};
    words.insert(words.end(), outer.begin(), outer.end());
    words.insert(words.end(), {"a", "--", LOCKCTL, "run"});
    const Words& modes = inner.empty() ? outer : inner;
    words.insert(words.end(), modes.begin(), modes.end());
    words.insert(words.end(), {"a", "true"});
    Program below(line(words), here());
    EXPECT_TRUE(eventually_waiting(1)) << held << ": " << below.err();
    other.reset();
    EXPECT_EQ(below.wait(), 0) << held << ": " << below.err();
  }
}

TEST_F(LockctlNested, RunBelowRunInCrIsRefusedWhatTheOuterOneKeepsFromIt) {
  EXPECT_EQ(lockctl({"run", "-m", "CR", "a", "--", LOCKCTL, "run", "a", "true"}).status, 75);
  EXPECT_EQ(lockctl({"run", "-m", "CR", "a", "--", LOCKCTL, "run", "-m", "PW", "a", "true"}).status,
            0);
}

}  // namespace
}  // namespace lockfs::test
