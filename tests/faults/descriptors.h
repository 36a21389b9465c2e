// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <future>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/support/mount.h"

namespace lockfs::test {

/// Tests that open locks of several mounts; what they opened is closed at the end.
class DescriptorTest : public testing::Test {
 protected:
  ~DescriptorTest() override { close_all(); }
  void close_all() {
    for (const int fd : std::exchange(descriptors_, {})) close(fd);
  }
  /// Holds nothing yet.
  int open_lock(const Mount& mount, const std::string& name) {
    const int fd = open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) descriptors_.push_back(fd);
    return fd;
  }
  /// open(O_CREAT | O_EXCL): 0 or its errno.
  int exclusive(const Mount& mount, const std::string& name) {
    const int fd = open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return errno;
    descriptors_.push_back(fd);
    return 0;
  }
  /// A command whose answer is waited for elsewhere.
  static std::future<int> asks(int fd, const std::string& words = "EX") {
    return std::async(std::launch::async, [=] { return write_command(fd, words); });
  }
  /// As that mount sees it.
  static size_t waiters(const Mount& mount, const std::string& name) {
    return static_cast<size_t>(
        std::atoi(picture_value(slurp(mount.lock(name)), "waiters_total").c_str()));
  }
  /// Whether two mounts of these sources exclude each other.
  bool share(const std::string& one, const std::string& two) {
    const Mount a({}, one);
    const Mount b({}, two);
    EXPECT_TRUE(eventually([&] { return exclusive(a, "shared") == 0; })) << a.log();
    const int result = exclusive(b, "shared");
    EXPECT_TRUE(result == EEXIST || result == 0) << result << b.log();
    close_all();
    return result == EEXIST;
  }
  /// What lockfs says that does not start with this source.
  static std::string refusal(const std::string& source) {
    try {
      const Mount mount({}, source);
      return "it is mounted";
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }

 private:
  std::vector<int> descriptors_;
};

/// A directory with a certificate of localhost and its key, signed by itself; gone when this ends.
class Certificate {
 public:
  Certificate();
  ~Certificate();
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;
  std::string file() const { return directory_ + "/cert"; }
  std::string key() const { return directory_ + "/key"; }

 private:
  std::string directory_ = "/tmp/lockfs-tls-XXXXXX";
};

}  // namespace lockfs::test
