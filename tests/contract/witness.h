// SPDX-License-Identifier: MIT
#pragma once
#include <gtest/gtest.h>
#include <semaphore.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// A T, made without arguments, that a test and the children it forks from now on see together.
template <typename T>
class Common {
 public:
  Common()
      : memory_(
            mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::runtime_error("mmap");
    value_ = new (memory_) T();
  }
  ~Common() { munmap(memory_, sizeof(T)); }
  Common(const Common&) = delete;
  Common& operator=(const Common&) = delete;
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  void* memory_;
  T* value_;
};

/// Whether an exclusive lock is held by one at a time. Who is granted it enters, and leaves before
/// it lets go; so nobody is within who does not hold.
class Sole {
 public:
  void enter() {
    if (inside_.exchange(true)) ++twice_;
  }
  void leave() { inside_ = false; }
  /// How often somebody came while another was within.
  int twice() const { return twice_; }

 private:
  std::atomic<bool> inside_{false};
  std::atomic<int> twice_{0};
};

/// A step that one process waits for and another one gives.
class Step {
 public:
  Step() { sem_init(&semaphore_, 1, 0); }
  void give() { sem_post(&semaphore_); }
  /// False when it was not given in that time.
  bool wait(int seconds = 60);

 private:
  sem_t semaphore_{};
};

/// What end_of() says of a child that does not end.
inline constexpr int kHangs = -1;
/// How a child ends, as Child::wait(); kHangs if it does not within `seconds`.
int end_of(Child& child, double seconds = 60);

/// Whether all of them end with 0.
testing::AssertionResult all_end_well(const std::vector<std::unique_ptr<Child>>& children);

/// Opens a lock and writes a command to it: 0, or the errno. The descriptor stays open.
int ask(const std::string& path, const std::string& command);

/// What a descriptor's own picture says under a key, as in "this.mode".
std::string own(int fd, const std::string& key);

/// The token of what is held through a descriptor; 0: none.
uint64_t token_of(int fd);

/// Holds a daemon with SIGSTOP for as long as it lives.
class Stopped {
 public:
  explicit Stopped(pid_t daemon);
  ~Stopped();
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  pid_t daemon_;
};

}  // namespace lockfs::test
