// SPDX-License-Identifier: MIT
// Commands that are none: each gets EINVAL, and words that say what is wrong, and where.
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "fs/command.h"
#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using namespace std::string_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Bad {
  std::string text;
  std::string words;  ///< The message has these.
};

const std::vector<Bad>& bad_mode_strings() {
  static const std::vector<Bad> all = {
      {"\n", "an empty command"},
      {"  \t ", "an empty command"},
      {"\"\"", "unknown mode ''"},
      {"EXX", "unknown mode 'EXX'; the first word is NL CR CW PR PW EX"},
      {"E X", "unknown mode 'E'"},
      {"5s", "unknown mode '5s'"},
      {"try EX", "unknown mode 'try'"},
      {"\xc3\xa4\xff", "unknown mode '"},
      {"EX\nEX\n", "one command a write: there is a second line"},
      {"EX\n\n", "second line"},
      {"EX\r\n", "byte 3 is a control character"},
      {"\0EX"s, "byte 1 is a control character"},
      {"EX\0"s, "byte 3 is a control character"},
      {"EX note=\"\x1b[31m\"", "byte 10 is a control character"},
      {"EX note=\"\\\x1b[31m\"", "byte 11 is a control character"},
      {"EX \x7f", "byte 4 is a control character"},
      {"EX note=\"open", "a \" is not closed"},
      {"EX note=\"open\\\"", "a \" is not closed"},
      {"EX bogus",
       "unknown option 'bogus'; options: try timeout= ttl= size= linger= onlost= note="},
      {"EX try bogus=1", "unknown option 'bogus=1'"},
      {"EX try bogus", "(word 3)"},
      {"EX =", "unknown option '='"},
      {"EX =5s", "unknown option '=5s'"},
      {"EX EX", "unknown option 'EX'"},
      {"EX try try", "option 'try' is there twice (word 3)"},
      {"EX ttl=1s TTL=2s", "option 'TTL' is there twice (word 3)"},
      {"EX try=1", "option 'try' takes no value (word 2)"},
      {"EX try=", "option 'try' takes no value"},
      {"EX timeout", "option 'timeout' needs a value (word 2)"},
      {"EX note", "option 'note' needs a value"},
      {"EX try timeout=1s", "try does not wait, so timeout= makes no sense with it"},
      {"EX size=3", "size= goes with SLOT only"},
      {"SLOT", "SLOT needs size=N"},
      {"slot try", "SLOT needs size=N"},
      {"EX ttl=0s", "ttl: must be more than 0 (word 2)"},
      {"EX linger=0ms", "linger: must be more than 0"},
      {"EX onlost=NOSUCH", "onlost: 'NOSUCH': no such signal; for example TERM or USR1"},
      {"EX onlost=", "onlost: '': no such signal"},
      {"EX onlost=SIG", "onlost: 'SIG': no such signal"},
      {"EX onlost=0", "onlost: '0': no such signal"},
      {"EX onlost=32", "onlost: '32': no such signal"},
      {"EX onlost=-9", "onlost: '-9': no such signal"},
      {"EX onlost=9999999999999999999999", "no such signal"},
      {"UN now", "'UN' stands alone, but 'now' follows"},
      {"un try", "'un' stands alone, but 'try' follows"},
      {"renew 5s", "'renew' stands alone, but '5s' follows"},
      {"renew=5s ttl=1s", "'renew' stands alone, but 'ttl=1s' follows"},
      {"renew=0s", "renew: must be more than 0"},
      {"renew=", "renew: '' is not a duration"},
      {"renew=soon", "renew: 'soon' is not a duration"},
      {"resume", "resume needs the key"},
      {"resume a b", "'resume' stands alone, but 'b' follows"},
  };
  return all;
}

// The same wrong value for each option that takes one of its kind.
std::vector<Bad> bad_values() {
  std::vector<Bad> all;
  const auto not_duration = {"",     "5",  "s",    "5 s",  "-5s", "+5s",
                             "1.5s", "5d", "5sec", "0x5s", "5s5"};
  const auto too_long = {"99999999999999999999s", "87673h", "18446744073709551616ms",
                         "9223372036854775807h"};
  for (const std::string option : {"timeout", "ttl", "linger"}) {
    for (const std::string value : not_duration) {
      const std::string shown = value.substr(0, value.find(' '));
      all.push_back({"EX " + option + "=" + value,
                     option + ": '" + shown + "' is not a duration such as 500ms, 5s, 2m or 1h"});
    }
    for (const std::string value : too_long) {
      all.push_back({"EX " + option + "=" + value,
                     option + ": '" + value + "' is longer than ten years (word 2)"});
    }
  }
  for (const std::string value : {"", "0", "-1", "+1", "0x10", "1.0", "1e3", "1000000001",
                                  "4294967297", "99999999999999999999"}) {
    all.push_back({"SLOT size=" + value,
                   "size: '" + value + "' is not a whole number from 1 to 1000000000 (word 2)"});
  }
  return all;
}

std::vector<Bad> all_bad() {
  std::vector<Bad> all = bad_mode_strings();
  for (Bad& bad : bad_values()) all.push_back(std::move(bad));
  const std::string long_option = "EX " + std::string(4000, 'x');
  all.push_back({long_option, "unknown option 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"});
  all.push_back({"EX" + std::string(4095, ' '), "at most 4096 bytes, this one 4097"});
  all.push_back({std::string(65536, 'E'), "at most 4096 bytes, this one 65536"});
  return all;
}

bool has_control_character(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

TEST(BadModeString, IsRefusedInWordsThatSayWhatIsWrong) {
  EXPECT_THAT(parse_command("").error(), HasSubstr("an empty command"));
  for (const Bad& bad : all_bad()) {
    const auto parsed = parse_command(bad.text);
    ASSERT_FALSE(parsed.has_value()) << bad.text;
    EXPECT_THAT(parsed.error(), HasSubstr(bad.words)) << bad.text;
    EXPECT_FALSE(has_control_character(parsed.error())) << parsed.error();
    EXPECT_LT(parsed.error().size(), 300U) << parsed.error();
  }
}

TEST(GoodModeString, AtTheEdgesIsAccepted) {
  const std::string note = "EX note=" + std::string(4088, 'n');
  for (const std::string& good :
       {"EX\n"s, "  ex\t try  "s, "Shared"s, "EXCLUSIVE ttl=1MS"s, "EX timeout=0s"s,
        "EX ttl=87672h"s, "slot size=1000000000"s, "EX onlost=sigterm"s, "EX onlost=31"s,
        "EX note="s, "EX note=\"a \\\" b\\\\\""s, "EX \"note=a b\""s, "renew=1ms"s, "Un"s,
        "Resume 0"s, note}) {
    EXPECT_TRUE(parse_command(good).has_value()) << good;
  }
  EXPECT_EQ(parse_command("EX note=\"a \\\" b\\\\\"")->request.note, "a \" b\\");
  EXPECT_EQ(parse_command("EX ttl=87672h")->request.ttl, std::chrono::hours(87672));
}

using BadWrite = MountTest;

TEST_F(BadWrite, IsEinvalAndTheDescriptorSaysWhy) {
  const Fd fd = open("a");
  for (const Bad& bad : all_bad()) {
    EXPECT_EQ(write_command(fd.get(), bad.text), EINVAL) << bad.text;
    EXPECT_THAT(value_of(fd.get(), "this.error"), HasSubstr(bad.words)) << bad.text;
  }
  EXPECT_FALSE(visible("a"));
}

TEST_F(BadWrite, ChangesNothingThatIsHeld) {
  const Fd fd = hold("a", "PW ttl=1h note=kept");
  const std::string expires = value("a", "holders.0.expires");
  for (const Bad& bad : all_bad()) ASSERT_EQ(write_command(fd.get(), bad.text), EINVAL) << bad.text;
  EXPECT_EQ(mode_of(fd.get()), "PW");
  EXPECT_EQ(value("a", "holders.0.note"), "kept");
  EXPECT_EQ(value("a", "holders.0.expires"), expires);
  EXPECT_EQ(write_command(fd.get(), "UN"), 0);
}

TEST_F(BadWrite, OfAMegabyteIsEinvalOnce) {
  const Fd fd = open("a");
  const std::string megabyte(1 << 20, 'E');
  EXPECT_EQ(write(fd.get(), megabyte.data(), megabyte.size()), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_THAT(value_of(fd.get(), "this.error"), HasSubstr("at most 4096 bytes"));
}

TEST_F(BadWrite, OfNothingDoesNothing) {
  const Fd fd = open("a");
  EXPECT_EQ(write(fd.get(), "", 0), 0) << "the kernel answers it by itself";
  EXPECT_EQ(mode_of(fd.get()), "none");
}

TEST_F(BadWrite, OfEveryByteAloneIsRefusedOrHarmless) {
  const Fd fd = open("a");
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(write_command(fd.get(), std::string(1, static_cast<char>(byte))), EINVAL) << byte;
    EXPECT_NE(value_of(fd.get(), "this.error"), "") << byte;
  }
}

TEST_F(BadWrite, OfAnExtendedAttributeIsRefused) {
  const Fd fd = hold("a", "EX");
  const std::string value(33, 'x');
  const auto set = [&](const char* name, size_t size) {
    return fsetxattr(fd.get(), name, value.data(), size, 0) == 0 ? 0 : errno;
  };
  EXPECT_EQ(set("user.lockfs.lvb", 33), ERANGE);
  EXPECT_EQ(set("user.lockfs.mode", 2), ENOTSUP);
  EXPECT_EQ(set("user.lockfs.token", 1), ENOTSUP);
  EXPECT_EQ(set("user.other", 1), ENOTSUP);
  EXPECT_EQ(xattr_of(fd.get(), "user.other"), "errno " + std::to_string(ENODATA));
}

struct BadControl {
  std::string text;
  int error;
  std::string words;
};

const std::vector<BadControl>& bad_controls() {
  static const std::vector<BadControl> all = {
      {"\n", EINVAL, "an empty command"},
      {"nonsense", EINVAL, "unknown command 'nonsense'; commands: allocate [ID] | free ID"},
      {"EX", EINVAL, "unknown command 'EX'"},
      {"STATS", EINVAL, "unknown command 'STATS'"},
      {"stats now", EINVAL, "it is: stats"},
      {"allocate 1 2", EINVAL, "it is: allocate [ID]"},
      {"allocate x", EINVAL, "allocate: 'x' is not a whole number from 0 to 2047"},
      {"allocate -1", EINVAL, "allocate: '-1' is not"},
      {"allocate 2048", EINVAL, "allocate: '2048' is not a whole number from 0 to 2047"},
      {"allocate 99999999999999999999", EINVAL, "allocate: '99999999999999999999' is not"},
      {"free", EINVAL, "it is: free ID"},
      {"free x", EINVAL, "free: 'x' is not a whole number"},
      {"free 18446744073709551616", EINVAL, "free: '18446744073709551616' is not"},
      {"free 7", ENOENT, "free: 7 is not allocated"},
      {"free-all now", EINVAL, "it is: free-all"},
      {"pin", EINVAL, "it is: pin NAME"},
      {"pin a b", EINVAL, "it is: pin NAME"},
      {"pin \"\"", EINVAL, "pin: '' cannot be the name of a lock"},
      {"pin .", EINVAL, "pin: '.' cannot be the name of a lock"},
      {"pin ..", EINVAL, "pin: '..' cannot be"},
      {"pin .ctl", EINVAL, "pin: '.ctl' cannot be"},
      {"pin a/b", EINVAL, "pin: 'a/b' cannot be"},
      {"pin " + std::string(256, 'x'), EINVAL, "cannot be the name of a lock"},
      {"pin \"a", EINVAL, "a \" is not closed"},
      {"pin a\0b"s, EINVAL, "byte 6 is a control character"},
      {"pin a\nunpin a", EINVAL, "byte 6 is a control character"},
      {"unpin", EINVAL, "it is: unpin NAME"},
      {"unpin a", ENOENT, "unpin: 'a' is not pinned"},
      {"break", EINVAL, "it is: break NAME [why]"},
      {"break a", ENOENT, "break: 'a' is not held"},
      {"capacity 0", EINVAL, "capacity: '0' is not a whole number from 1 to 100000000"},
      {"capacity -1", EINVAL, "capacity: '-1' is not"},
      {"capacity 100000001", EINVAL, "capacity: '100000001' is not"},
      {"capacity 99999999999999999999", EINVAL, "capacity: '99999999999999999999' is not"},
      {"capacity 1 2", EINVAL, "it is: capacity [N]"},
      {"stats" + std::string(4092, ' '), EINVAL, "at most 4096 bytes, this one 4097"},
  };
  return all;
}

TEST_F(BadWrite, ToTheControlFileIsAnsweredInWords) {
  for (const BadControl& bad : bad_controls()) {
    const auto [error, answer] = control(bad.text);
    EXPECT_EQ(error, bad.error) << bad.text;
    EXPECT_THAT(answer, StartsWith("error: ")) << bad.text;
    EXPECT_THAT(answer, HasSubstr(bad.words)) << bad.text;
    EXPECT_EQ(answer.find('\n'), answer.size() - 1) << answer;
  }
  EXPECT_THAT(names_in(mount_.path() + "/default"), ::testing::ElementsAre(".ctl"));
  EXPECT_EQ(control("capacity").second, "2048\n");
}

}  // namespace
}  // namespace lockfs::test
