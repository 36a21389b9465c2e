// SPDX-License-Identifier: MIT
// The sample config file, doc/lockfs.toml: it sets nothing, and all that it shows can be set.
#include <unistd.h>

#include <array>
#include <fstream>
#include <regex>

#include "fs/config_file.h"
#include "fs/options.h"
#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using Values = std::vector<std::pair<std::string, std::string>>;

// The sample with each line's first '#' taken away: keys are set then, prose stays a comment.
std::string with_all_set() {
  std::istringstream lines(slurp(LOCKFS_SAMPLE_CONFIG));
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    out += (line.starts_with('#') ? line.substr(1) : line) + "\n";
  }
  return out;
}

Values values_of(const std::string& text) {
  Options options;
  EXPECT_EQ(parse_config(options, text, "sample"), std::nullopt);
  return option_values(options);
}

bool shows(const std::string& key, const std::string& text) {
  return std::regex_search(text, std::regex("(^|\n)" + key + " = "));
}

TEST(SampleConfig, SetsNothing) {
  Options options;
  EXPECT_EQ(parse_config(options, slurp(LOCKFS_SAMPLE_CONFIG), "sample"), std::nullopt);
  EXPECT_EQ(option_values(options), option_values(Options()));
  EXPECT_TRUE(options.lockspaces.empty());
}

TEST(SampleConfig, ShowsEachKeyWithItsDefault) {
  const std::string text = with_all_set();
  EXPECT_EQ(values_of(text), option_values(Options()));
  for (const UsageRow& row : option_rows()) EXPECT_TRUE(shows(row.name, text)) << row.name;
  const std::string spaces = text.substr(text.find("[lockspace."));
  for (const UsageRow& row : lockspace_rows()) EXPECT_TRUE(shows(row.name, spaces)) << row.name;
}

TEST(SampleConfig, IsAcceptedWithEachKeySet) {
  const std::string file = "/tmp/lockfs-sample-" + std::to_string(getpid()) + ".toml";
  for (const std::string& text : {slurp(LOCKFS_SAMPLE_CONFIG), with_all_set()}) {
    std::ofstream(file) << text;
    const auto [status, output] = run_lockfs({"--config", file, "--check-config"});
    EXPECT_EQ(status, 0) << output;
  }
  unlink(file.c_str());
}

TEST(CheckConfig, TellsAllThatIsWrongInTheOrderOfTheLines) {
  Options options;
  EXPECT_EQ(
      parse_config(options,
                   "poll = \"1s\"\nbogus = 1\ncapacity = 0\n"
                   "[lockspace.a]\nmode = 7\nsize = 5\n",
                   "f"),
      "f, line 1: poll: '1s' is not a time from 0us to 10000us; f, line 2: unknown option 'bogus'; "
      "known: log_level log_format poll max_opens_per_user max_waiters_per_user "
      "max_names_per_user max_lockspaces_per_user max_lockspaces idle_names capacity root_mode; "
      "f, line 3: capacity: '0' is not a whole number from 1 to 1000000000; f, line 5: "
      "lockspace.a: mode is a "
      "string such as \"0770\"; f, line 6: lockspace.a: unknown key 'size'; known: backend "
      "mode capacity");
}

TEST(CheckConfig, TellsTenOfVeryMany) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "[lockspace.a" + std::to_string(i) + "]\nmode = 7\n";
  Options options;
  const auto wrong = parse_config(options, text, "f");
  ASSERT_TRUE(wrong.has_value());
  EXPECT_TRUE(wrong->ends_with("; and 20 more")) << *wrong;
}

TEST(FstabWords, ForMountAndSystemdAreNotForUs) {
  const std::vector<const char*> argv = {"/sbin/mount.fuse.lockfs",
                                         "memory:",
                                         "/mnt",
                                         "-o",
                                         "rw,relatime,silent,_netdev,nofail,noauto,user=ann,x-"
                                         "systemd.automount,X-mount.mkdir,comment=a,capacity=3",
                                         "-n",
                                         "-s",
                                         "-v",
                                         "-t",
                                         "fuse.lockfs"};
  const auto options = parse_options(static_cast<int>(argv.size()), argv.data());
  ASSERT_TRUE(options.has_value()) << options.error().words;
  EXPECT_EQ(options->mount_options, std::vector<std::string>{"rw"});
  EXPECT_EQ(options->capacity, 3U);
  EXPECT_FALSE(options->fake);
}

TEST(FstabWords, AMountThatIsThereStaysAsItIs) {
  const std::array<const char*, 5> argv = {"mount.lockfs", "memory:", "/mnt", "-o", "remount,ro"};
  const auto options = parse_options(argv.size(), argv.data());
  ASSERT_FALSE(options.has_value());
  EXPECT_THAT(options.error().words, testing::HasSubstr("cannot be changed"));
}

TEST(FstabWords, LetterFFakesForMountAndStaysInTheForegroundForUsers) {
  const std::vector<const char*> words = {"", "memory:", "/mnt", "-f"};
  const auto parsed = [&](const char* program) {
    std::vector<const char*> argv = words;
    argv[0] = program;
    return *parse_options(static_cast<int>(argv.size()), argv.data());
  };
  EXPECT_TRUE(parsed("mount.lockfs").fake);
  EXPECT_FALSE(parsed("mount.lockfs").foreground);
  EXPECT_TRUE(parsed("/usr/bin/lockfs").foreground);
  EXPECT_FALSE(parsed("/usr/bin/lockfs").fake);
}

}  // namespace
}  // namespace lockfs::test
