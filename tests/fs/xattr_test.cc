// SPDX-License-Identifier: MIT
// Extended attributes: the lock value block, and facts for scripts.
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

const std::string kLvb = "user.lockfs.lvb";

int set(const Fd& fd, const std::string& value) {
  const int result = fsetxattr(fd.get(), kLvb.c_str(), value.data(), value.size(), 0);
  return result == 0 ? 0 : errno;
}

std::string padded(std::string value) {
  value.resize(32, '\0');
  return value;
}

using Xattrs = MountTest;

TEST_F(Xattrs, TheValueBlockIsWrittenByHoldersOfPwAndExOnly) {
  const Fd fd = open("a");
  EXPECT_EQ(set(fd, "x"), EPERM);
  for (const std::string mode : {"NL", "CR", "CW", "PR", "SLOT size=2"}) {
    ASSERT_EQ(write_command(fd.get(), mode), 0);
    EXPECT_EQ(set(fd, "x"), EPERM) << mode;
  }
  for (const std::string mode : {"PW", "EX"}) {
    ASSERT_EQ(write_command(fd.get(), mode), 0);
    EXPECT_EQ(set(fd, "by " + mode), 0) << mode;
    EXPECT_EQ(xattr_of(fd.get(), kLvb), padded("by " + mode));
  }
  ASSERT_EQ(write_command(fd.get(), "UN"), 0);
  EXPECT_EQ(set(fd, "x"), EPERM);
}

TEST_F(Xattrs, TheValueBlockIsReadByHoldersOfAnyMode) {
  Fd writer = hold("a", "EX");
  const Fd keeper = hold("a", "NL");
  ASSERT_EQ(set(writer, "value"), 0);
  writer.reset();
  const Fd reader = open("a");
  EXPECT_EQ(xattr_of(reader.get(), kLvb), "errno " + std::to_string(EPERM));
  for (const std::string mode : {"NL", "CR", "CW", "PR", "PW", "EX"}) {
    ASSERT_EQ(write_command(reader.get(), mode), 0);
    EXPECT_EQ(xattr_of(reader.get(), kLvb), padded("value")) << mode;
  }
}

TEST_F(Xattrs, TheValueBlockHas32Bytes) {
  const Fd fd = hold("a", "EX");
  EXPECT_EQ(xattr_of(fd.get(), kLvb), padded(""));
  EXPECT_EQ(set(fd, std::string(32, 'x')), 0);
  EXPECT_EQ(xattr_of(fd.get(), kLvb), std::string(32, 'x'));
  EXPECT_EQ(set(fd, std::string(33, 'y')), ERANGE);
  EXPECT_EQ(set(fd, "short"), 0);
  EXPECT_EQ(xattr_of(fd.get(), kLvb), padded("short")) << "the rest is zero";
}

TEST_F(Xattrs, TwoDescriptorsOfOneProcessAreNotTakenForEachOther) {
  const Fd holder = hold("a", "EX");
  const Fd other = open("a");
  EXPECT_EQ(set(other, "x"), EPERM);
  EXPECT_EQ(xattr_of(other.get(), kLvb), "errno " + std::to_string(EPERM));
  EXPECT_EQ(mode_of(other.get()), "none");
  EXPECT_EQ(mode_of(holder.get()), "EX");
}

TEST_F(Xattrs, HoldersInOtherWaysHaveTheValueBlockToo) {
  const Fd fd = open("a");
  ASSERT_EQ(flock_of(fd.get(), LOCK_EX), 0);
  EXPECT_EQ(set(fd, "flock"), 0);
  ASSERT_EQ(flock_of(fd.get(), LOCK_UN), 0);
  const Fd created = open("a", O_RDWR | O_CREAT | O_EXCL);
  EXPECT_EQ(set(created, "created"), 0);
}

TEST_F(Xattrs, AHolderOfAnOfdOrPosixLockHasTheValueBlockToo) {
  for (const int command : {F_OFD_SETLK, F_SETLK}) {
    const Fd fd = open("a");
    ASSERT_EQ(fcntl_of(fd.get(), command, F_WRLCK), 0);
    EXPECT_EQ(set(fd, "value"), 0) << command;
    EXPECT_EQ(xattr_of(fd.get(), kLvb), padded("value")) << command;
    EXPECT_EQ(mode_of(fd.get()), "EX") << command;
  }
}

TEST_F(Xattrs, ALostLocksValueBlockIsEstale) {
  const Fd fd = hold("a", "EX");
  ASSERT_EQ(control("break a").first, 0);
  EXPECT_EQ(set(fd, "x"), ESTALE);
}

TEST_F(Xattrs, ModeTokenAndHolderAreThereByPath) {
  Actor holder;
  ASSERT_EQ(holder.open(mount_.lock("a")), 0);
  ASSERT_EQ(holder.write(0, "PW"), 0);
  const Fd path(::open(mount_.lock("a").c_str(), O_RDONLY));
  const auto by_path = [&](const std::string& name) {
    std::string text(256, '\0');
    const ssize_t n = getxattr(mount_.lock("a").c_str(), name.c_str(), text.data(), text.size());
    return n < 0 ? "errno " + std::to_string(errno) : text.substr(0, size_t(n));
  };
  EXPECT_EQ(by_path("user.lockfs.mode"), "PW");
  EXPECT_EQ(by_path("user.lockfs.token"), value("a", "token"));
  EXPECT_THAT(by_path("user.lockfs.holder"), ::testing::HasSubstr(std::to_string(holder.pid())));
  EXPECT_EQ(by_path("user.lockfs.nothing"), "errno " + std::to_string(ENODATA));
  EXPECT_EQ(by_path(kLvb), "errno " + std::to_string(EPERM)) << "for holders";
}

TEST_F(Xattrs, OfManyHoldersAHundredAreNamed) {
  std::vector<Fd> all;
  for (int i = 0; i < 103; ++i) all.push_back(hold("a", "PR"));
  std::string text(65536, '\0');
  const ssize_t n =
      getxattr(mount_.lock("a").c_str(), "user.lockfs.holder", text.data(), text.size());
  ASSERT_GT(n, 0) << errno;
  text.resize(static_cast<size_t>(n));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 100);
  EXPECT_TRUE(text.ends_with("\nmore=3")) << text;
}

TEST_F(Xattrs, AllAreListed) {
  const Fd fd = hold("a", "EX");
  std::string text(4096, '\0');
  const ssize_t n = flistxattr(fd.get(), text.data(), text.size());
  ASSERT_GT(n, 0);
  text.resize(size_t(n));
  for (const char* name : {"lvb", "mode", "token", "holder"}) {
    EXPECT_THAT(text, ::testing::HasSubstr(std::string("user.lockfs.") + name + '\0'));
  }
}

TEST_F(Xattrs, OnlyTheValueBlockCanBeSet) {
  const Fd fd = hold("a", "EX");
  EXPECT_EQ(fsetxattr(fd.get(), "user.lockfs.mode", "PR", 2, 0), -1);
  EXPECT_EQ(errno, ENOTSUP);
  EXPECT_EQ(fsetxattr(fd.get(), "user.other", "PR", 2, 0), -1);
  EXPECT_EQ(errno, ENOTSUP);
  EXPECT_EQ(mode_of(fd.get()), "EX");
}

TEST_F(Xattrs, TheTokenOfADescriptorIsItsOwn) {
  Fd fd = hold("a", "EX");
  const std::string token = xattr_of(fd.get(), "user.lockfs.token");
  EXPECT_EQ(token, value_of(fd.get(), "this.token"));
  const Fd other = open("a");
  EXPECT_EQ(xattr_of(other.get(), "user.lockfs.token"), "0");
}

}  // namespace
}  // namespace lockfs::test
