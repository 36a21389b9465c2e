// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "tests/fs/mount_test.h"

namespace lockfs::test {

/// The four ways to wait for a lock that is open.
enum class Way { kFlock, kPosix, kOfd, kWrite };
inline constexpr std::array kWays = {Way::kFlock, Way::kPosix, Way::kOfd, Way::kWrite};
const char* name_of(Way way);
inline std::string name_of_case(const ::testing::TestParamInfo<Way>& tested) {
  return name_of(tested.param);
}

enum class Want { kShared, kExclusive, kNothing };

/// Takes (waiting) or gives up a lock in that way: 0, or its errno.
int take(Way way, int fd, Want want);

/// A process with a single thread that does what it is told, one thing after the other. It has no
/// descriptors of locks but those that it opened: make actors before the test opens any itself.
class Actor {
 public:
  Actor();
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;
  pid_t pid() const { return child_->pid(); }
  void signal(int number) const { child_->signal(number); }

  // Each does its thing and returns its errno, 0 if it went well. What is opened first is 0, the
  // next 1.
  int open(const std::string& path, int flags = O_RDWR | O_CREAT);
  int close(int file);
  int lock(Way way, int file, Want want) { return ask(lock_order(way, file, want)); }
  int write(int file, const std::string& command);
  int flock(int file, int operation);
  /// From now on it acts as this user, with no other groups.
  int become(uid_t uid);
  /// Makes a child that keeps all its descriptors until fork_ends().
  int fork();
  int fork_ends();
  /// It has a second, idle thread from now on.
  int add_thread();
  int mkdir(const std::string& path, mode_t mode);
  int unlink(const std::string& path);
  int chmod(const std::string& path, mode_t mode);

  /// Begins something that may wait; result() tells how it ended, if it did within `seconds`.
  void begin(Way way, int file, Want want) { send(lock_order(way, file, want)); }
  void begin_write(int file, const std::string& command);
  void begin_flock(int file, int operation);
  std::optional<int> result(double seconds = 10);

 private:
  enum class Verb {
    kOpen,
    kClose,
    kTake,
    kWrite,
    kFlock,
    kBecome,
    kFork,
    kForkEnds,
    kThread,
    kMkdir,
    kUnlink,
    kChmod
  };
  struct Order {
    Verb verb = Verb::kOpen;
    int file = 0;
    int argument = 0;
    Want want = Want::kNothing;
    std::array<char, 256> text{};
  };
  class Body;
  static Order order(Verb verb, int file, int argument = 0, const std::string& text = "");
  static Order lock_order(Way way, int file, Want want);
  void send(const Order& order);
  int ask(const Order& order);

  Fd orders_;
  Fd answers_;
  std::unique_ptr<Child> child_;
};

}  // namespace lockfs::test
