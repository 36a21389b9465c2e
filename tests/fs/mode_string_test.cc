// SPDX-License-Identifier: MIT
// Mode strings: words, options, and what a refusal says.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;

class ModeStrings : public MountTest {
 protected:
  int write(const std::string& command) const { return write_command(fd_.get(), command); }
  std::string error() const { return value_of(fd_.get(), "this.error"); }
  Fd fd_ = open("a");
};

TEST_F(ModeStrings, WordsMayBeInAnyCaseAndEndWithANewline) {
  const std::vector<std::pair<std::string, std::string>> all = {
      {"ex", "EX"},          {"Pr\n", "PR"},        {"shared", "PR"},
      {"EXCLUSIVE\n", "EX"}, {"  cw   TRY ", "CW"}, {"Slot SIZE=2", "SLOT"},
      {"nl", "NL"},          {"cr\n", "CR"},        {"pw\ttry", "PW"}};
  for (const auto& [command, mode] : all) {
    EXPECT_EQ(write(command), 0) << command;
    EXPECT_EQ(mode_of(fd_.get()), mode) << command;
    EXPECT_EQ(write("un\n"), 0);
    EXPECT_EQ(mode_of(fd_.get()), "none");
  }
}

TEST_F(ModeStrings, ABadCommandIsEinvalAndThisErrorSaysWhy) {
  const std::vector<std::pair<std::string, std::string>> all = {
      {"XX", "unknown mode 'XX'"},
      {"", ""},
      {"\n", "empty"},
      {"EX bogus", "unknown option 'bogus'"},
      {"EX timeout", "needs a value"},
      {"EX timeout=5", "not a duration"},
      {"EX timeout=-1s", "not a duration"},
      {"EX ttl=0s", "more than 0"},
      {"EX try=1", "takes no value"},
      {"EX try try", "twice"},
      {"EX try timeout=1s", "try"},
      {"SLOT", "size"},
      {"SLOT size=0", "size"},
      {"EX size=3", "SLOT"},
      {"EX onlost=NOPE", "no such signal"},
      {"EX note=\"open", "not closed"},
      {"EX\nUN", "one command a write"},
      {"UN now", "stands alone"},
      {"renew", "nothing to renew"},
      {"resume", "key"}};
  for (const auto& [command, why] : all) {
    if (command.empty()) continue;  // write(2) of nothing reaches no filesystem.
    EXPECT_EQ(write(command), EINVAL) << command;
    EXPECT_THAT(error(), HasSubstr(why)) << command;
    EXPECT_EQ(mode_of(fd_.get()), "none") << command;
  }
}

TEST_F(ModeStrings, ABadCommandChangesNothingOfWhatIsHeld) {
  ASSERT_EQ(write("EX"), 0);
  EXPECT_EQ(write("PR nonsense"), EINVAL);
  EXPECT_EQ(mode_of(fd_.get()), "EX");
}

TEST_F(ModeStrings, ACommandHasAtMost4096Bytes) {
  const std::string lead = "EX note=\"";
  EXPECT_EQ(write(lead + std::string(4096 - lead.size() - 1, 'x') + "\""), 0);
  EXPECT_EQ(write(lead + std::string(4096 - lead.size(), 'x') + "\""), EINVAL);
  EXPECT_THAT(error(), HasSubstr("4096"));
  EXPECT_EQ(mode_of(fd_.get()), "EX");
}

TEST_F(ModeStrings, TryFailsWithEagainAndNamesTheHolder) {
  Actor holder;
  ASSERT_EQ(holder.open(mount_.lock("a")), 0);
  ASSERT_EQ(holder.write(0, "PW"), 0);
  EXPECT_EQ(write("EX try"), EAGAIN);
  EXPECT_THAT(error(), HasSubstr("held in PW by pid " + std::to_string(holder.pid())));
  EXPECT_THAT(error(), HasSubstr("fs_tests"));
  EXPECT_EQ(waiters(), 0U);
}

TEST_F(ModeStrings, TryDoesNotOvertakeAWaiter) {
  const Fd holder = hold("a", "PR");
  const Fd waiter = open("a");
  auto wait = in_thread([&] { return write_command(waiter.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(write("PR try"), EAGAIN) << "it would have to wait behind EX";
  EXPECT_EQ(write("CR try"), EAGAIN);
  EXPECT_EQ(write("NL try"), 0);
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  ASSERT_TRUE(ended(wait));
}

TEST_F(ModeStrings, ANonblockingDescriptorDoesNotWait) {
  const Fd holder = hold("a", "EX");
  const Fd opened = open("a", O_RDWR | O_NONBLOCK);
  EXPECT_EQ(write_command(opened.get(), "PR"), EAGAIN);
  ASSERT_EQ(fcntl(fd_.get(), F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(write("EX"), EAGAIN) << "set later, it counts as well";
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  EXPECT_EQ(write("EX"), 0);
}

TEST_F(ModeStrings, TimeoutEndsTheWaitWithEtimedout) {
  Actor holder;  // Not this process: waiting for itself would be a deadlock.
  ASSERT_EQ(holder.open(mount_.lock("a")), 0);
  ASSERT_EQ(holder.write(0, "EX"), 0);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(write("EX timeout=150ms"), ETIMEDOUT);
  const auto waited = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(waited, std::chrono::milliseconds(150));
  EXPECT_LT(waited, std::chrono::seconds(5));
  EXPECT_EQ(waiters(), 0U);
  EXPECT_EQ(value("a", "stats.timeouts"), "1");
  EXPECT_THAT(error(), HasSubstr("held in EX"));
  EXPECT_EQ(write("EX timeout=0s"), ETIMEDOUT);
}

TEST_F(ModeStrings, TimeoutOfAConversionLeavesTheOldMode) {
  Actor other;
  ASSERT_EQ(other.open(mount_.lock("a")), 0);
  ASSERT_EQ(other.write(0, "PR"), 0);
  ASSERT_EQ(write("PR"), 0);
  EXPECT_EQ(write("EX timeout=50ms"), ETIMEDOUT);
  EXPECT_EQ(mode_of(fd_.get()), "PR");
}

TEST_F(ModeStrings, TimeoutThatIsNotReachedDoesNothing) {
  const Fd holder = hold("a", "EX");
  auto wait = in_thread([&] { return write("EX timeout=1h"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_NE(value("a", "waiters.0.deadline"), "");
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  ASSERT_TRUE(ended(wait));
  EXPECT_EQ(wait.get(), 0);
}

TEST_F(ModeStrings, NoteIsShownToWhoeverReads) {
  ASSERT_EQ(write("EX note=\"nightly \\\"backup\\\": 50% # done\""), 0);
  EXPECT_EQ(value("a", "holders.0.note"), "nightly \"backup\": 50% # done");
  ASSERT_EQ(write("EX"), 0);
  EXPECT_EQ(value("a", "holders.0.note"), "") << "a new command has its own options";
}

TEST_F(ModeStrings, AReleaseIsAlwaysFine) {
  EXPECT_EQ(write("UN"), 0);
  ASSERT_EQ(write("EX"), 0);
  EXPECT_EQ(write("UN"), 0);
  EXPECT_EQ(write("UN"), 0);
  EXPECT_FALSE(visible("a"));
}

TEST_F(ModeStrings, AReadOnlyDescriptorCannotBeWritten) {
  ASSERT_EQ(write("PR"), 0);
  const Fd reader = open("a", O_RDONLY);
  EXPECT_EQ(write_command(reader.get(), "PR"), EBADF);
}

TEST_F(ModeStrings, ShellRedirectionLocksAndReads) {
  const std::string script =
      "exec 9<>" + mount_.lock("s") +
      "; echo 'PR timeout=5s' >&9 || exit 1; grep -q 'mode: PR' <&9 || exit 2;"
      "exec 9>&-; test ! -e " +
      mount_.lock("s");
  EXPECT_EQ(system(("bash -c \"" + script + "\"").c_str()), 0);
}

TEST_F(ModeStrings, NoclobberIsALockFile) {
  const std::string name = mount_.lock("once");
  EXPECT_EQ(system(("bash -c 'set -C; : 9>" + name + "'").c_str()), 0);
  const Fd holder = hold("once", "EX");
  EXPECT_NE(system(("bash -c 'set -C; : 9>" + name + "' 2>/dev/null").c_str()), 0);
}

TEST_F(ModeStrings, TheFlockProgramLocks) {
  const std::string name = mount_.lock("f");
  EXPECT_EQ(system(("flock " + name + " -c 'test -e " + name + "'").c_str()), 0);
  const Fd holder = hold("f", "PR");
  EXPECT_NE(system(("flock -n " + name + " true").c_str()), 0);
  EXPECT_EQ(system(("flock -s -n " + name + " true").c_str()), 0);
}

}  // namespace
}  // namespace lockfs::test
