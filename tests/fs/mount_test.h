// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// A descriptor, closed at the end.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    reset();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  int get() const { return fd_; }
  /// It is somebody else's to close from now on.
  void release() { fd_ = -1; }
  bool valid() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_;
};

/// flock(2): 0, or its errno.
int flock_of(int fd, int operation);
/// fcntl(2) of a lock on the whole file, `command` F_SETLK, F_OFD_SETLKW, ...: 0, or its errno.
int fcntl_of(int fd, int command, int type);
/// One picture, read from the start by pread(2).
std::string picture_of(int fd);
/// A value of that picture, as in picture_value().
std::string value_of(int fd, const std::string& key);
/// What the open file itself holds: "EX", "none", ...
std::string mode_of(int fd);
std::string xattr_of(int fd, const std::string& name);
/// The names in a directory, without "." and "..", sorted.
std::vector<std::string> names_in(const std::string& directory);
/// Has `pid` come to sleep in this system call?
bool sleeps_in(pid_t pid, long system_call);
/// Runs the call in a thread of its own, for one that waits.
template <typename Call>
auto in_thread(Call call) {
  return std::async(std::launch::async, std::move(call));
}
/// Has the call come back, within `seconds`?
template <typename T>
bool ended(const std::future<T>& call, double seconds = 10) {
  return call.wait_for(std::chrono::duration<double>(seconds)) == std::future_status::ready;
}

/// Each test has a mount of its own.
class MountTest : public ::testing::Test {
 protected:
  /// Opens a lock; without O_EXCL that takes nothing.
  Fd open(const std::string& name, int flags = O_RDWR | O_CREAT) const;
  /// Opens a lock and takes it by a mode string; fails the test if it is not granted at once.
  Fd hold(const std::string& name, const std::string& mode) const;
  /// The errno of an open that is to fail; 0 if it did not.
  int open_error(const std::string& name, int flags) const;
  bool visible(const std::string& name) const;
  /// A value of the picture that a stranger reads; "" while the name is not visible.
  std::string value(const std::string& name, const std::string& key) const;
  /// How many wait in the lockspace `default`; counted without looking at each.
  size_t waiters() const;
  bool eventually_waiting(size_t count, double seconds = 10) const;
  /// One command to `.ctl`: its errno and its answer.
  std::pair<int, std::string> control(const std::string& command,
                                      const std::string& lockspace = "default") const;

  Mount mount_;
};

}  // namespace lockfs::test
