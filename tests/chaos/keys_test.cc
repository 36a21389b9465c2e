// SPDX-License-Identifier: MIT
// The keys of `linger=` and `resume`: who sees them, who may use them.
#include <unistd.h>

#include <cerrno>
#include <regex>
#include <set>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Keys : public MountTest {
 protected:
  static std::string key_of(const Fd& fd) { return value_of(fd.get(), "this.key"); }
  // Ann takes a lock that lingers: her descriptor.
  Fd anns_lingering(const std::string& name) const {
    const As ann(kAnn);
    return hold(name, "EX linger=1h note=kept");
  }
};

TEST_F(Keys, AKeyIs128RandomBits) {
  constexpr size_t kCount = 200;
  std::set<std::string> keys;
  std::set<char> digits;
  for (size_t i = 0; i < kCount; ++i) {
    const Fd fd = hold("k" + std::to_string(i), "EX linger=1h");
    const std::string key = key_of(fd);
    EXPECT_TRUE(std::regex_match(key, std::regex("[0-9a-f]{32}"))) << key;
    keys.insert(key);
    digits.insert(key.begin(), key.end());
  }
  EXPECT_EQ(keys.size(), kCount);
  EXPECT_EQ(digits.size(), 16U);
}

TEST_F(Keys, NoBitOfTheKeysStandsStill) {
  uint64_t ever_one = 0;
  uint64_t ever_zero = 0;
  for (int i = 0; i < 100; ++i) {
    const Fd fd = hold("k", "EX linger=1ms");
    const uint64_t half = std::stoull(key_of(fd).substr(i % 2 == 0 ? 0 : 16, 16), nullptr, 16);
    ever_one |= half;
    ever_zero |= ~half;
    EXPECT_EQ(write_command(fd.get(), "UN"), 0);
  }
  EXPECT_EQ(ever_one, ~uint64_t{0});
  EXPECT_EQ(ever_zero, ~uint64_t{0});
}

TEST_F(Keys, TheHolderAloneIsShownItsKey) {
  Fd anns = anns_lingering("a");
  const std::string key = key_of(anns);
  ASSERT_EQ(key.size(), 32U);
  const Fd other = open("a");
  EXPECT_EQ(write_command(other.get(), "EX try"), EAGAIN) << "so that it has a this: of its own";
  const std::string info = mount_.path() + "/.lockfs/";
  for (const bool lingering : {false, true}) {
    if (lingering) anns.reset();
    EXPECT_EQ(value("a", "mode"), "EX") << lingering;
    EXPECT_THAT(picture_of(other.get()), Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(slurp(mount_.lock("a")), Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(slurp(info + "locks.json"), Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(slurp(info + "waits"), Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(xattr_of(other.get(), "user.lockfs.holder"), Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(control("stats").second, Not(HasSubstr(key))) << lingering;
    EXPECT_THAT(mount_.log(), Not(HasSubstr(key))) << lingering;
  }
}

TEST_F(Keys, AnotherUserCannotResumeEvenWithTheKey) {
  Fd anns = anns_lingering("a");
  const std::string key = key_of(anns);
  anns.reset();
  {
    const As ben(kBen);
    const Fd bens = open("a");
    EXPECT_EQ(write_command(bens.get(), "resume " + key), EPERM);
    EXPECT_EQ(mode_of(bens.get()), "none");
    EXPECT_THAT(value_of(bens.get(), "this.error"), HasSubstr("only that user may resume it"));
  }
  EXPECT_TRUE(eventually([&] {
    const std::string log = mount_.log();
    return log.find("resume") != std::string::npos && log.find("12346") != std::string::npos;
  })) << mount_.log();
  EXPECT_THAT(mount_.log(), Not(HasSubstr(key)));
  const As ann(kAnn);
  const Fd again = open("a");
  EXPECT_EQ(write_command(again.get(), "resume " + key), 0);
  EXPECT_EQ(mode_of(again.get()), "EX");
}

TEST_F(Keys, AWrongKeyResumesNothing) {
  Fd anns = anns_lingering("a");
  std::string key = key_of(anns);
  anns.reset();
  const As ann(kAnn);
  const Fd again = open("a");
  const Fd elsewhere = open("b");
  EXPECT_EQ(write_command(elsewhere.get(), "resume " + key), ENOENT) << "another lock's";
  key.back() = key.back() == '0' ? '1' : '0';
  for (const std::string& wrong : {key, key.substr(1), key + "0", std::string("\"\"")}) {
    EXPECT_EQ(write_command(again.get(), "resume " + wrong), ENOENT) << wrong;
  }
  EXPECT_EQ(mode_of(again.get()), "none");
  EXPECT_EQ(value("a", "holders.0.lingering"), "true");
}

TEST_F(Keys, AKeyDoesNotTakeALockFromALivingHolder) {
  const Fd anns = anns_lingering("a");
  const As ann(kAnn);
  const Fd thief = open("a");
  EXPECT_EQ(write_command(thief.get(), "resume " + key_of(anns)), EBUSY);
  EXPECT_EQ(mode_of(anns.get()), "EX");
}

TEST_F(Keys, AKeyIsGoodOnce) {
  Fd first = hold("a", "EX linger=1h");
  const std::string key = key_of(first);
  first.reset();
  Fd second = open("a");
  ASSERT_EQ(write_command(second.get(), "resume " + key), 0);
  EXPECT_NE(key_of(second), key) << "the next one is another";
  second.reset();
  const Fd third = open("a");
  EXPECT_EQ(write_command(third.get(), "resume " + key), ENOENT);
  EXPECT_EQ(value("a", "holders.0.lingering"), "true");
}

}  // namespace
}  // namespace lockfs::test
