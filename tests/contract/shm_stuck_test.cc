// SPDX-License-Identifier: MIT
// What mounts do while another one has stopped in the midst of a change of their segment; this test
// is that other one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include "backends/shm/shared_segment.h"
#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

class ShmStuck : public testing::Test {
 protected:
  ShmStuck() : mount_({}, "shm:" + name_ + "?locks=64") {
    auto opened = shm::SharedSegment::open("/dev/shm/" + name_, std::nullopt);
    if (!opened) throw std::runtime_error(opened.error());
    other_ = std::move(*opened);
  }
  ~ShmStuck() override { unlink(("/dev/shm/" + name_).c_str()); }
  int open_lock(const std::string& lock) const {
    return open(mount_.lock(lock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  }
  void stop() {
    ASSERT_TRUE(eventually([&] { return other_->enter(); }));
  }
  void go_on() { other_->leave(); }
  shm::SharedSegment& other() { return *other_; }
  const Mount& mount() const { return mount_; }

 private:
  std::string name_ = "lockfs-stuck-" + std::to_string(getpid());
  Mount mount_;
  std::unique_ptr<shm::SharedSegment> other_;
};

TEST_F(ShmStuck, RequestsAreRefusedAfterASecondAndGoOnWhenItGoesOn) {
  const int fd = open_lock("a");
  stop();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(write_command(fd, "EX"), EHOSTUNREACH);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 5);
  EXPECT_NE(mount().log().find("pid " + std::to_string(getpid())), std::string::npos)
      << mount().log();
  go_on();
  EXPECT_EQ(write_command(fd, "EX timeout=10s"), 0);
}

TEST_F(ShmStuck, WhatIsReleasedMeanwhileIsFreeAfter) {
  const int fd = open_lock("a");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  std::optional<shm::LockSegment::Place> place;
  ASSERT_TRUE(eventually([&] { return other().enter(); }));
  EXPECT_EQ(other().locks().acquire(other().self(), "default", "a", Mode::kEX, false, place,
                                    other().wake()),
            shm::LockSegment::Turn::kWaits);
  ASSERT_EQ(write_command(fd, "UN"), 0) << "a release waits for nobody";
  go_on();
  EXPECT_TRUE(eventually([&] { return !other().locks().claim(other().self(), *place).waits(); }));
}

TEST_F(ShmStuck, LooksAreAnsweredByWhatIsKnownHere) {
  const int fd = open_lock("a");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  stop();
  EXPECT_EQ(picture_value(slurp(mount().lock("a")), "mode"), "EX");
  EXPECT_EQ(access(mount().lock("b").c_str(), F_OK), -1);
  go_on();
}

TEST_F(ShmStuck, OneThatDiesWithinIsMendedByTheNext) {
  const int fd = open_lock("a");
  const std::string path = other().path();
  Child dies([&] {
    auto third = shm::SharedSegment::open(path, std::nullopt);
    if (!third || !(*third)->enter()) return 1;
    kill(getpid(), SIGKILL);
    return 2;
  });
  EXPECT_EQ(dies.wait(), 128 + SIGKILL);
  EXPECT_EQ(write_command(fd, "EX timeout=10s"), 0);
}

}  // namespace
}  // namespace lockfs::test
