// SPDX-License-Identifier: MIT
// lockctl run beside flock(1): the same letters, the same exit codes.
#include <sys/file.h>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

struct Case {
  Words options;
  Words command;
};

std::string text_of(const Words& words) {
  std::string out;
  for (const std::string& word : words) out += " " + word;
  return out;
}

const Words kTrue = {"true"};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {{}, kTrue},
      {{}, {"false"}},
      {{}, {"sh", "-c", "exit 9"}},
      {{}, {"-c", "exit 5"}},
      {{}, {"--command", "exit 5"}},
      {{}, {"-c", "a", "b"}},
      {{}, {"sh", "-c", "kill -9 $$"}},
      {{}, {"sh", "-c", "kill -TERM $$"}},
      {{}, {"-c", "kill -INT $$"}},
      {{}, {"/nonexistent"}},
      {{}, {"nonexistent-command"}},
      {{}, {"/tmp"}},
      {{}, {"-n", "true"}},
      {{}, {}},
      {{"-n"}, kTrue},
      {{"--nb"}, kTrue},
      {{"--nonblock"}, kTrue},
      {{"-s", "-n"}, kTrue},
      {{"--shared", "-n"}, kTrue},
      {{"-x", "-n"}, kTrue},
      {{"-e", "-n"}, kTrue},
      {{"--exclusive", "-n"}, kTrue},
      {{"-n", "-E", "7"}, kTrue},
      {{"-nE", "7"}, kTrue},
      {{"-n", "--conflict-exit-code", "7"}, kTrue},
      {{"-n", "-E", "0"}, kTrue},
      {{"-w", "0.05"}, kTrue},
      {{"-w", ".05", "-E", "9"}, kTrue},
      {{"--wait", "0.05"}, kTrue},
      {{"--timeout", "0.05"}, kTrue},
      {{"-w", "0"}, kTrue},
      {{"-w", "0.05", "-n"}, kTrue},
      {{"-o", "-n"}, {"sh", "-c", "exit 4"}},
      {{"--close", "-n"}, kTrue},
      {{"-F", "-n"}, {"sh", "-c", "exit 3"}},
      {{"--no-fork", "-n"}, {"sh", "-c", "kill -TERM $$"}},
      {{"-F", "-n"}, {"/nonexistent"}},
      {{"-F", "-o"}, kTrue},
      {{"-n", "-E", "300"}, kTrue},
      {{"-n", "-E", "x"}, kTrue},
      {{"-w", "x"}, kTrue},
      {{"--bogus"}, kTrue},
  };
  return all;
}

class FlockLetters : public LockctlTest {
 protected:
  /// Both, with the same arguments, each behind the file or the name.
  void compare(const Case& tried, const std::string& when) const {
    Words flock = {"flock"};
    Words mine = line({"run"});
    for (Words* words : {&flock, &mine}) {
      words->insert(words->end(), tried.options.begin(), tried.options.end());
      words->push_back(words == &flock ? mount_.lock("a") : "a");
      words->insert(words->end(), tried.command.begin(), tried.command.end());
    }
    const Ended theirs = run(flock, here());
    const Ended ours = run(mine, here());
    EXPECT_EQ(ours.status, theirs.status)
        << when << ":" << text_of(mine) << "\nflock said: " << theirs.err
        << "lockctl said: " << ours.err;
    EXPECT_EQ(ours.out, theirs.out) << when << ":" << text_of(mine);
  }
  static bool waits(const Case& tried) {
    for (const std::string& option : tried.options) {
      if (option.starts_with("-n") || option.starts_with("--n") || option == "-w" ||
          option == "--wait" || option == "--timeout" || option == "--bogus") {
        return false;
      }
    }
    return true;
  }
};

TEST_F(FlockLetters, EndAlikeOnAFreeLock) {
  for (const Case& tried : cases()) compare(tried, "free");
}

TEST_F(FlockLetters, EndAlikeOnALockThatIsHeldExclusively) {
  const Fd holder = hold("a", "EX");
  for (const Case& tried : cases()) {
    if (!waits(tried)) compare(tried, "held EX");
  }
}

TEST_F(FlockLetters, EndAlikeOnALockThatIsShared) {
  const Fd holder = hold("a", "PR");
  for (const Case& tried : cases()) {
    if (!waits(tried)) compare(tried, "held PR");
  }
}

TEST_F(FlockLetters, ExcludeEachOther) {
  Program theirs({"flock", mount_.lock("a"), "sleep", "1000"});
  ASSERT_TRUE(eventually_held("a"));
  EXPECT_EQ(lockctl({"run", "-n", "a", "--", "true"}).status, 1);
  Program ours(line({"run", "b", "--", "sleep", "1000"}), here());
  ASSERT_TRUE(eventually_held("b"));
  EXPECT_EQ(run({"flock", "-n", mount_.lock("b"), "true"}).status, 1);
}

}  // namespace
}  // namespace lockfs::test
