// SPDX-License-Identifier: MIT
// What usage/ makes of a parser, read by those who will read it: rst2man and the shells.
#include "usage/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

// A program with all that a parser can have.
class Program {
 public:
  Program() {
    app_.add_flag("-q,--quiet", quiet_, "say it's *nothing*");
    app_.add_option("-F,--format", format_, "how")->transform(CLI::IsMember({"text", "json"}));
    app_.add_option("--config", format_, "a file")->type_name("FILE");
    app_.add_flag("--secret", quiet_, "not for all")->group("");
    CLI::App* run = app_.add_subcommand("run", "takes a lock, runs a command");
    run->add_option("name", format_, "of the lock")->required();
    run->add_option("command", words_, "to run");
    run->add_option("-w,--wait", seconds_, "seconds")
        ->type_name("SECS")
        ->check(CLI::Range(0, 9))
        ->group("Waiting");
    run->footer("Exit status: 1 when it is held.");
    app_.add_subcommand("rest", "does nothing");
  }
  Usage usage() const { return {app_, {{"keys", {{"a_key", "what it does (5)"}}}}, {}}; }
  std::optional<std::string> says(std::vector<const char*> words) const {
    words.insert(words.begin(), "prog");
    return printed_usage(usage(), static_cast<int>(words.size()), words.data());
  }

 private:
  CLI::App app_{"A program.", "prog"};
  bool quiet_ = false;
  int seconds_ = 0;
  std::string format_;
  std::vector<std::string> words_;
};

std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> piece{};
  while (fgets(piece.data(), piece.size(), pipe) != nullptr) out += piece.data();
  const int status = pclose(pipe);
  return status == 0 ? out : out + "(status " + std::to_string(status) + ")";
}

// A text in a file of its own.
class TextFile {
 public:
  explicit TextFile(const std::string& text) {
    close(mkstemp(path_.data()));
    std::ofstream(path_) << text;
  }
  ~TextFile() { unlink(path_.c_str()); }
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/lockfs-usage-XXXXXX";
};

bool is_here(const std::string& program) {
  if (std::system(("command -v " + program + " >/dev/null").c_str()) == 0) return true;
  const char* required = std::getenv("LOCKFS_TEST_REQUIRE");
  const std::string list = " " + std::string(required != nullptr ? required : "") + " ";
  EXPECT_THAT(list, Not(HasSubstr(" " + program + " "))) << "it is required";
  return false;
}

TEST(Usage, IsPrintedOnlyToItsOwnOptions) {
  const Program program;
  EXPECT_EQ(program.says({}), std::nullopt);
  EXPECT_EQ(program.says({"run", "x"}), std::nullopt);
  EXPECT_EQ(program.says({"--print-manual", "nonsense"}), std::nullopt);
  EXPECT_EQ(program.says({"--print-completion"}), std::nullopt);
  EXPECT_EQ(program.says({"--print-completion", "tcsh"}), std::nullopt);
  EXPECT_EQ(program.says({"--print-manual", "keys", "more"}), std::nullopt);
}

TEST(Usage, ManualHasOptionsCommandsGroupsAndFooters) {
  const std::string manual = *Program().says({"--print-manual"});
  EXPECT_THAT(manual, HasSubstr("**-q**, **--quiet**\n    say it's \\*nothing\\*\n"));
  EXPECT_THAT(manual, HasSubstr("**--config** *FILE*\n"));
  EXPECT_THAT(manual, HasSubstr("**run** [options] *name* [*command* ...]\n    takes a lock"));
  EXPECT_THAT(manual, HasSubstr("**-F**, **--format** *TEXT*\n    how: text, json\n"));
  EXPECT_THAT(manual,
              HasSubstr("    Waiting:\n\n    **-w**, **--wait** *SECS*\n        seconds (0 - 9)"));
  EXPECT_THAT(manual, HasSubstr("Exit status: 1 when it is held."));
  EXPECT_THAT(manual, HasSubstr("**rest**\n    does nothing"));
  EXPECT_THAT(manual, Not(HasSubstr("secret")));
  EXPECT_EQ(*Program().says({"--print-manual", "keys"}), "**a\\_key**\n    what it does (5)\n\n");
}

TEST(Usage, ManualIsWhatRst2manTakesWithoutAWarning) {
  if (!is_here("rst2man")) GTEST_SKIP() << "rst2man is not installed";
  const TextFile text("prog\n####\n\nOPTIONS\n=======\n\n" + *Program().says({"--print-manual"}));
  const std::string page = output_of("rst2man --strict " + text.path() + " 2>&1");
  EXPECT_THAT(page, HasSubstr("\\fB\\-q\\fP, \\fB\\-\\-quiet\\fP"));
  EXPECT_THAT(page, HasSubstr("say it\\(aqs *nothing*"));
  EXPECT_THAT(page, Not(HasSubstr("status ")));
}

// What bash offers behind these words.
std::string bash_offers(const std::string& script, const std::string& words) {
  const TextFile file(script);
  return output_of("bash -c 'compopt() { :; }; . " + file.path() + "; COMP_WORDS=(" + words +
                   "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _${COMP_WORDS[0]}; "
                   "echo ${COMPREPLY[*]}' 2>&1");
}

TEST(Usage, BashOffersOptionsCommandsAndValues) {
  if (!is_here("bash")) GTEST_SKIP() << "bash is not installed";
  const std::string script = *Program().says({"--print-completion", "bash"});
  EXPECT_EQ(bash_offers(script, "prog r"), "run rest\n");
  EXPECT_EQ(bash_offers(script, "prog --q"), "--quiet\n");
  EXPECT_EQ(bash_offers(script, "prog --s"), "\n") << "which is for nobody";
  EXPECT_EQ(bash_offers(script, "prog --format \"\""), "text json\n");
  EXPECT_EQ(bash_offers(script, "prog --quiet run --w"), "--wait\n");
  EXPECT_EQ(bash_offers(script, "prog run --q"), "\n");
}

TEST(Usage, ZshTakesItsScript) {
  if (!is_here("zsh")) GTEST_SKIP() << "zsh is not installed";
  const TextFile file(*Program().says({"--print-completion", "zsh"}));
  // The lists that it would describe, in the place of zsh's own functions.
  const std::string stubs =
      "_describe() { eval \"print -l -- \\$$@[$#]\"; }; _files() { print files; }; "
      "_message() { print $1; }; ";
  const auto offers = [&](const std::string& words) {
    return output_of("zsh -fc '" + stubs + "words=(" + words + "); CURRENT=$#words; . " +
                     file.path() + "' 2>&1");
  };
  EXPECT_EQ(offers("prog \"\""), "run:takes a lock, runs a command\nrest:does nothing\nfiles\n");
  EXPECT_THAT(offers("prog -"), HasSubstr("--quiet:say it's *nothing*\n"));
  EXPECT_EQ(offers("prog --config \"\""), "files\n");
  EXPECT_EQ(offers("prog run -w \"\""), "SECS\n");
  EXPECT_THAT(offers("prog run -"), HasSubstr("--wait:seconds\n"));
}

TEST(Usage, FishOffersOptionsCommandsAndValues) {
  if (!is_here("fish")) GTEST_SKIP() << "fish is not installed";
  const TextFile file(*Program().says({"--print-completion", "fish"}));
  const auto offers = [&](const std::string& line) {
    return output_of("fish --no-config -c 'source " + file.path() + "; complete -C \"" + line +
                     "\"' 2>&1");
  };
  EXPECT_THAT(offers("prog ru"), HasSubstr("run\ttakes a lock, runs a command\n"));
  EXPECT_EQ(offers("prog --qui"), "--quiet\tsay it's *nothing*\n");
  EXPECT_EQ(offers("prog --format j"), "json\thow\n");
  EXPECT_EQ(offers("prog run --wai"), "--wait\tseconds\n");
  EXPECT_EQ(offers("prog run --qui"), "");
}

TEST(Usage, LockfsKnowsItsOwn) {
  const std::string lockfs = lockfs_binary();
  const std::string manual = output_of(lockfs + " --print-manual");
  EXPECT_THAT(manual, HasSubstr("**--check-config**"));
  EXPECT_THAT(manual, HasSubstr("**serve** *URL*"));
  EXPECT_THAT(output_of(lockfs + " --print-manual keys"),
              HasSubstr("**max\\_opens\\_per\\_user**"));
  EXPECT_THAT(output_of(lockfs + " --print-manual lockspace"), HasSubstr("**backend**"));
  EXPECT_THAT(output_of(lockfs + " --print-manual urls"), HasSubstr("**elock://HOST[:PORT]**"));
  const std::string script = output_of(lockfs + " --print-completion bash");
  EXPECT_EQ(bash_offers(script, "lockfs -o cap"), "capacity=\n");
  EXPECT_EQ(bash_offers(script, "lockfs mem"), "memory:\n");
  EXPECT_THAT(output_of(lockfs + " --help"), HasSubstr("  capacity "));
  EXPECT_THAT(output_of(lockfs + " --help"), HasSubstr("lockfs serve URL"));
}

TEST(Usage, NoKeyOfLockfsRunsIntoItsHelp) {
  std::istringstream lines(output_of(lockfs_binary() + " --help"));
  std::string line;
  while (std::getline(lines, line) && !line.starts_with("Options for -o")) continue;
  int keys = 0;
  for (; std::getline(lines, line) && line.starts_with("  "); ++keys) {
    EXPECT_THAT(line, MatchesRegex("  [a-z_]+  +[^ ].*"));
  }
  EXPECT_GT(keys, 10);
}

}  // namespace
}  // namespace lockfs::test
