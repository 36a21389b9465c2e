// SPDX-License-Identifier: MIT
// What lockctl makes of its words, before and behind run's NAME.
#include "ctl/command_line.h"

#include <sys/stat.h>
#include <unistd.h>

#include "ctl/options.h"
#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ctl::CommandLine cut(const Words& words) {
  ctl::Arguments arguments;
  const auto app = ctl::make_app(arguments);
  std::vector<const char*> argv = {"lockctl"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  return ctl::cut(*app, static_cast<int>(argv.size()), argv.data());
}

TEST(LockctlCut, WhatIsBehindRunsNameIsTheCommands) {
  const auto line = cut({"--mount", "/m", "run", "-nw", "5", "--note", "x", "a", "sh", "-c", "-n"});
  EXPECT_THAT(line.ours, ElementsAre("--mount", "/m", "run", "-nw", "5", "--note", "x", "a"));
  EXPECT_THAT(line.command, ElementsAre("sh", "-c", "-n"));
  EXPECT_THAT(cut({"run", "-w5", "a", "--", "b", "--", "c"}).command, ElementsAre("b", "--", "c"));
  EXPECT_THAT(cut({"run", "--wait=5", "a", "b"}).command, ElementsAre("b"));
  EXPECT_THAT(cut({"run", "--", "-a", "b"}).command, ElementsAre("b"));
  EXPECT_THAT(cut({"run", "a", "--note="}).command, ElementsAre("--note="));
}

TEST(LockctlCut, AnEmptyValueIsAWordOfItsOwn) {
  const auto line = cut({"run", "--note=", "backup", "sh"});
  EXPECT_THAT(line.ours, ElementsAre("run", "--note", "", "backup"));
  EXPECT_THAT(line.command, ElementsAre("sh"));
  EXPECT_THAT(cut({"break", "--why=", "a"}).ours, ElementsAre("break", "--why", "", "a"));
}

TEST(LockctlCut, OtherCommandsKeepAllTheirWords) {
  const auto line = cut({"list", "--user", "run", "space", "more"});
  EXPECT_THAT(line.ours, ElementsAre("list", "--user", "run", "space", "more"));
  EXPECT_THAT(line.command, IsEmpty());
  EXPECT_THAT(cut({"run", "-w"}).ours, ElementsAre("run", "-w"));
  EXPECT_THAT(cut({}).ours, IsEmpty());
}

using LockctlLine = LockctlTest;

TEST_F(LockctlLine, ReachTheCommandAsTheyAre) {
  const Words odd = {"[0-9]", "[]", "[a,b]", "-c", "--note=", "", "--"};
  for (const Words& lead : {Words{"run", "a"}, Words{"run", "a", "--"}}) {
    Words words = lead;
    words.insert(words.end(), {"printf", "<%s>"});
    words.insert(words.end(), odd.begin(), odd.end());
    EXPECT_EQ(lockctl(words).out, "<[0-9]><[]><[a,b]><-c><--note=><><-->");
  }
  EXPECT_EQ(lockctl({"run", "a", "-c", "[ -d /proc ] && [ ! -e /nosuch ]"}).status, 0);
}

TEST_F(LockctlLine, AnEmptyVariableDoesNotTakeAnotherLock) {
  for (const Words& words : {Words{"run", "--note=", "backup", "sh", "-c", "echo $LOCKFS_LOCK"},
                             {"run", "--note=", "backup", "--", "sh", "-c", "echo $LOCKFS_LOCK"}}) {
    EXPECT_EQ(lockctl(words).out, "default/backup\n");
  }
  const Ended ended = lockctl({"run", "--wait=", "5", "sh", "-c", "echo no"});
  EXPECT_EQ(ended.status, 64);
  EXPECT_THAT(ended.err, HasSubstr("'' is not a number of seconds"));
  EXPECT_THAT(ended.out, IsEmpty());
}

TEST_F(LockctlLine, NumbersAreCheckedInWords) {
  for (const char* wait : {"abc", "-1", "nan", "5s"}) {
    EXPECT_THAT(lockctl({"run", "-w", wait, "a", "true"}).err,
                HasSubstr(std::string("'") + wait + "' is not a number of seconds, 0 or more"));
  }
  for (const char* size : {"-3", "0", "2.5", "many"}) {
    const Ended ended = lockctl({"run", "-m", "SLOT", "--size", size, "a", "true"});
    EXPECT_THAT(ended.err, HasSubstr(std::string("'") + size + "' is not a number of slots"));
  }
  EXPECT_THAT(lockctl({"run", "--note", "one\ntwo", "a", "true"}).err,
              AllOf(HasSubstr("--note"), HasSubstr("one line")));
  const Ended none = lockctl({"alloc", ""});
  EXPECT_NE(none.status, 0) << "an empty variable is no number: " << none.out;
}

TEST_F(LockctlLine, WhatNamesNoLockIsRefused) {
  for (const std::string& name :
       {mount_.path(), mount_.path() + "/default", mount_.path() + "/", std::string("a/b/c")}) {
    const Ended ended = lockctl({"show", name});
    EXPECT_EQ(ended.status, 64) << name;
    EXPECT_THAT(ended.err, HasSubstr("'" + name + "' does not name a lock"));
  }
  for (const char* space : {"", "../x", "a/b"}) {
    const Ended ended = lockctl({"alloc", "-l", space});
    EXPECT_EQ(ended.status, 64);
    EXPECT_THAT(ended.err, HasSubstr("does not name a lockspace"));
  }
}

TEST_F(LockctlLine, OfALockspaceThatIsNotThereOrNotToBeSeenNothingIsSaid) {
  ASSERT_EQ(mkdir((mount_.path() + "/mine").c_str(), 0700), 0);
  for (const char* command : {"show", "waits"}) {
    EXPECT_EQ(lockctl({command, "nosuch/a"}).status, 66) << command;
    EXPECT_EQ(lockctl({command, "mine/a"}, 4242).status, 77) << command;
    EXPECT_NE(lockctl({command, "mine/a"}).status, 77) << command;
  }
  rmdir((mount_.path() + "/mine").c_str());
}

}  // namespace
}  // namespace lockfs::test
