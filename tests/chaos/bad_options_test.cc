// SPDX-License-Identifier: MIT
// Options, URLs and config files that are wrong: a message that says what and where, exit status 2.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "fs/options.h"
#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using namespace std::string_literals;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

struct Bad {
  Words words;
  std::string message;
};

const std::vector<Bad>& bad_command_lines() {
  static const std::vector<Bad> all = {
      {{}, "where to? lockfs [SOURCE] MOUNTPOINT"},
      {{"memory:", "/mnt", "more"}, "too many words: [SOURCE] MOUNTPOINT, got 'more'"},
      {{"--bogus", "/mnt"}, "--bogus"},
      {{"/mnt", "-o"}, "-o"},
      {{"/mnt", "--config"}, "--config"},
      {{"bogus:", "/mnt"}, "'bogus:' names no backend; known here: memory:"},
      {{"memory", "/mnt"}, "'memory' names no backend"},
      {{"", "/mnt"}, "'' names no backend"},
      {{":", "/mnt"}, "':' names no backend"},
      {{"MEMORY:", "/mnt"}, "'MEMORY:' names no backend"},
      {{"memory:x", "/mnt"}, "memory: takes nothing behind the colon, but has 'x'"},
      {{"-o", "capacity", "/mnt"}, "option capacity needs a value"},
      {{"-o", "capacity=", "/mnt"}, "capacity: '' is not a whole number from 1 to 1000000000"},
      {{"-o", "capacity=0", "/mnt"}, "capacity: '0' is not a whole number"},
      {{"-o", "capacity=-1", "/mnt"}, "capacity: '-1' is not"},
      {{"-o", "capacity=1k", "/mnt"}, "capacity: '1k' is not"},
      {{"-o", "capacity=99999999999999999999", "/mnt"}, "capacity: '99999999999999999999' is not"},
      {{"-o", "max_opens_per_user=0", "/mnt"}, "max_opens_per_user: '0' is not"},
      {{"-o", "max_waiters_per_user=many", "/mnt"}, "max_waiters_per_user: 'many' is not"},
      {{"-o", "max_names_per_user=1.5", "/mnt"}, "max_names_per_user: '1.5' is not"},
      {{"-o", "max_lockspaces=0", "/mnt"}, "max_lockspaces: '0' is not"},
      {{"-o", "idle_names=-1", "/mnt"}, "idle_names: '-1' is not"},
      {{"-o", "allow_other,capacity=x", "/mnt"}, "capacity: 'x' is not"},
      {{"-o", "root_mode=999", "/mnt"}, "root_mode: '999' is not an octal mode such as 0770"},
      {{"-o", "root_mode=17777", "/mnt"}, "root_mode: '17777' is not an octal mode"},
      {{"-o", "root_mode=rwx", "/mnt"}, "root_mode: 'rwx' is not an octal mode"},
      {{"-o", "log_level=loud", "/mnt"}, "log_level: 'loud' is none of trace, debug, info"},
      {{"-o", "log_format=xml", "/mnt"}, "log_format: 'xml' is none of text, json, journald"},
      {{"-o", "poll=5ms", "/mnt"}, "poll: '5ms' is not a time from 0us to 10000us"},
      {{"-o", "poll=10001us", "/mnt"}, "poll: '10001us' is not a time from 0us to 10000us"},
      {{"-o", "poll=us", "/mnt"}, "poll: 'us' is not"},
      {{"-o", "config=/does/not/exist", "/mnt"}, "/does/not/exist: cannot be read"},
      {{"--config", "/tmp", "/mnt"}, "/tmp: cannot be read"},
      {{"--config=", "memory:", "/mnt"}, "--config= has no value"},
      {{"-o", "config=", "/mnt"}, "option config needs a value"},
      {{"-o", "ro,config", "/mnt"}, "option config needs a value"},
      {{"-o", "capacity=\x1b[31m", "/mnt"}, "capacity: '"},
      {{"a\nb:", "/mnt"}, "names no backend"},
  };
  return all;
}

bool has_control_character(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

TEST(BadCommandLine, IsRefusedInWords) {
  for (const Bad& bad : bad_command_lines()) {
    std::vector<const char*> argv = {"lockfs"};
    for (const std::string& word : bad.words) argv.push_back(word.c_str());
    const auto options = parse_options(static_cast<int>(argv.size()), argv.data());
    ASSERT_FALSE(options.has_value()) << bad.message;
    EXPECT_FALSE(options.error().is_help) << bad.message;
    EXPECT_THAT(options.error().words, HasSubstr(bad.message));
    EXPECT_FALSE(has_control_character(options.error().words)) << options.error().words;
  }
}

TEST(BadCommandLine, EndsTheProgramWithStatus2) {
  for (const Bad& bad : bad_command_lines()) {
    const auto [status, output] = run_lockfs(bad.words);
    EXPECT_EQ(status, 2) << bad.message << ": " << output;
    EXPECT_THAT(output, HasSubstr(bad.message));
    EXPECT_THAT(output, ::testing::StartsWith("lockfs: "));
  }
}

// A mountpoint of the test's own: at one place only one lockfs may begin at a time.
class Place {
 public:
  Place() { EXPECT_NE(mkdtemp(path_.data()), nullptr); }
  ~Place() { rmdir(path_.c_str()); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/lockfs-bad-XXXXXX";
};

TEST(BadCommandLine, AnOptionThatNobodyKnowsIsNamedWithStatus2) {
  const Place place;
  for (const Words& lead : {Words{"-f"}, Words{}}) {
    for (const std::string option : {"nonsense", "nonsense=1", "capacit=5"}) {
      Words words = lead;
      words.insert(words.end(), {"-o", option, place.path()});
      const auto [status, output] = run_lockfs(words);
      EXPECT_EQ(status, 2) << option << ": " << output;
      EXPECT_THAT(output, HasSubstr(option));
    }
  }
}

TEST(BadCommandLine, IsCheckedAsTheMountWouldRefuseIt) {
  const Place place;
  for (const std::string option : {"capacitty=3,allow_othr", "allow_othr", "max_read", "colour"}) {
    const auto [status, output] = run_lockfs({"--check-config", "-o", option, place.path()});
    EXPECT_EQ(status, 2) << option;
    EXPECT_EQ(output, run_lockfs({"-f", "-o", option, place.path()}).second);
  }
  const auto [status, output] = run_lockfs({"--check-config", "-o", "ro,capacity=3,max_read=4096"});
  EXPECT_EQ(status, 0) << output;
}

TEST(BadCommandLine, AMountpointThatIsNotThereIsNamedWithStatus1) {
  const auto [status, output] = run_lockfs({"/does/not/exist"});
  EXPECT_EQ(status, 1);
  EXPECT_THAT(output, HasSubstr("/does/not/exist: no such directory"));
}

struct BadConfig {
  std::string text;
  std::string message;
};

const std::vector<BadConfig>& bad_configs() {
  static const std::vector<BadConfig> all = {
      {"bogus = 1", "f, line 1: unknown option 'bogus'; known: log_level"},
      {"\n\ncapacity = \"x\"", "f, line 3: capacity: 'x' is not a whole number"},
      {"capacity = -1", "f, line 1: capacity: '-1' is not"},
      {"capacity = 1.5", "f, line 1: capacity takes a string or a whole number"},
      {"capacity = [1]", "f, line 1: capacity takes a string or a whole number"},
      {"capacity = 99999999999999999999", "f, line 1: "},
      {"[lockspace.a]\nbackend = \"\"", "f, line 2: lockspace.a: "},
      {"capacity = ", "f, line 1: "},
      {"capacity = 1\ncapacity = 2", "f, line 2: "},
      {"capacity", "f, line 1: "},
      {"= 1", "f, line 1: "},
      {"root_mode = 0770", "f, line 1: "},
      {"root_mode = \"888\"", "f, line 1: root_mode: '888' is not an octal mode"},
      {"poll = \"1s\"", "f, line 1: poll: '1s' is not a time from 0us to 10000us"},
      {"log_level = \"loud\"", "log_level: 'loud' is none of"},
      {"log_level = \"a\\u0007b\"", "log_level: '"},
      {"lockspace = 1", "f, line 1: lockspace is not a table"},
      {"lockspace.a = 1", "f, line 1: lockspace.a is not a table"},
      {"[lockspace.a]\nbackend = 1", "f, line 2: lockspace.a: "},
      {"[lockspace.a]\nbackend = \"x:\"", "f, line 2: lockspace.a: 'x:' names no backend"},
      {"[lockspace.a]\nmode = \"9\"", "f, line 2: lockspace.a: '9' is not an octal mode"},
      {"[lockspace.a]\nmode = 770", "f, line 2: lockspace.a: mode is a string such as \"0770\""},
      {"[lockspace.a]\ncapacity = 0", "f, line 2: lockspace.a: capacity: '0' is not"},
      {"[lockspace.a]\ncapacity = \"5\"", "f, line 2: lockspace.a: capacity is a whole number"},
      {"[lockspace.a]\nsize = 5", "f, line 2: lockspace.a: unknown key 'size'; known: backend"},
      {"[lockspace.\"\"]", "f, line 1: '' cannot be a lockspace's name"},
      {"[lockspace.\".lockfs\"]", "'.lockfs' cannot be a lockspace's name"},
      {"[lockspace.\"a/b\"]", "'a/b' cannot be a lockspace's name"},
      {"[lockspace.\"a\\u0000b\"]", "cannot be a lockspace's name"},
      {"[lockspace." + std::string(256, 'x') + "]", "cannot be a lockspace's name"},
      {"[lockspace.a]\n[lockspace.a]", "f, line 2: "},
      {"\"\\u0007\" = 1", "unknown option"},
      {"\xff\xfe", "f, line 1: "},
      {"\0"s, "f, line 1: "},
      {std::string(100000, '['), "f, line 1: "},
      {"a = " + std::string(100000, '['), "f, line 1: "},
      {"a = \"open", "f, line 1: "},
  };
  return all;
}

TEST(BadConfig, IsRefusedInWordsThatSayWhere) {
  for (const BadConfig& bad : bad_configs()) {
    Options options;
    const auto wrong = parse_config(options, bad.text, "f");
    ASSERT_TRUE(wrong.has_value()) << bad.text.substr(0, 100);
    EXPECT_THAT(*wrong, HasSubstr(bad.message)) << bad.text.substr(0, 100);
    EXPECT_FALSE(has_control_character(*wrong)) << *wrong;
    EXPECT_LT(wrong->size(), 1000U) << *wrong;
  }
}

TEST(BadConfig, EndsTheProgramWithStatus2AndNamesTheFile) {
  const std::string file = "/tmp/lockfs-chaos-" + std::to_string(getpid()) + ".toml";
  for (const BadConfig& bad : bad_configs()) {
    std::ofstream(file) << bad.text;
    const auto [status, output] = run_lockfs({"--config", file, "--check-config"});
    EXPECT_EQ(status, 2) << bad.text.substr(0, 100) << ": " << output;
    EXPECT_THAT(output, HasSubstr("lockfs: " + file + ", line "));
  }
  unlink(file.c_str());
}

TEST(GoodConfig, EmptyOrFullIsAccepted) {
  const std::string file = "/tmp/lockfs-chaos-" + std::to_string(getpid()) + ".toml";
  const std::string full =
      "capacity = 5\nroot_mode = \"0755\"\npoll = \"10us\"\nmax_opens_per_user = \"7\"\n"
      "[lockspace.jobs]\nbackend = \"memory:\"\nmode = \"0770\"\ncapacity = 9\n"
      "[lockspace.\"with space\"]\n";
  for (const std::string& text : {""s, "\n# nothing\n"s, full}) {
    std::ofstream(file) << text;
    const auto [status, output] = run_lockfs({"--config", file, "--check-config"});
    EXPECT_EQ(status, 0) << output;
  }
  unlink(file.c_str());
  Options options;
  EXPECT_EQ(parse_config(options, full, "f"), std::nullopt);
  EXPECT_EQ(options.capacity, 5U);
  EXPECT_EQ(options.max_opens_per_user, 7U);
  EXPECT_EQ(options.lockspaces.at("jobs").mode, 0770U);
  EXPECT_EQ(options.lockspaces.at("jobs").capacity, 9U);
}

TEST(GoodCommandLine, KeepsPlacesAsTheyStand) {
  const auto places = [](std::vector<const char*> words) {
    words.insert(words.begin(), "lockfs");
    const auto options = parse_options(static_cast<int>(words.size()), words.data());
    return options ? options->source + " " + options->mountpoint : options.error().words;
  };
  EXPECT_EQ(places({"memory:", "[mm]"}), "memory: [mm]");
  EXPECT_EQ(places({"[a,b]"}), "memory: [a,b]");
  EXPECT_EQ(places({"file:/tmp", "/mnt"}), "file:/tmp /mnt");
  EXPECT_EQ(places({"--", "memory:", "--config="}), "memory: --config=");
  EXPECT_EQ(places({"memory:", ""}), "memory: ");
}

TEST(GoodCommandLine, GoesBeforeTheConfigFile) {
  const std::string file = "/tmp/lockfs-chaos-" + std::to_string(getpid()) + ".toml";
  std::ofstream(file) << "capacity = 5\nidle_names = 3\n";
  const std::string option = "config=" + file + ",capacity=6,,";
  const std::array argv = {"lockfs", "-o", option.c_str(), "/mnt"};
  const auto options = parse_options(static_cast<int>(argv.size()), argv.data());
  unlink(file.c_str());
  ASSERT_TRUE(options.has_value()) << options.error().words;
  EXPECT_EQ(options->capacity, 6U);
  EXPECT_EQ(options->idle_names, 3U);
  EXPECT_EQ(options->mountpoint, "/mnt");
  EXPECT_EQ(options->source, "memory:");
}

}  // namespace
}  // namespace lockfs::test
