// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "tests/fs/mount_test.h"

namespace lockfs::test {

using Words = std::vector<std::string>;

/// How a program is started.
struct Circumstances {
  std::map<std::string, std::string> environment = {};  ///< Besides the test's own.
  uid_t uid = 0;
  std::vector<int> ignored = {};  ///< Signals that it ignores.
  bool without_kcmp = false;      ///< kcmp(2) is forbidden, as in containers.
};

/// A program as a user starts it, in a process group of its own, without a terminal. It and what it
/// started are killed at the end.
class Program {
 public:
  explicit Program(const Words& words, const Circumstances& circumstances = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// What it has written so far.
  std::string out() const { return text_of(out_); }
  std::string err() const { return text_of(err_); }
  bool eventually_says(const std::string& words) const;
  bool has_ended();
  /// Waits for its end: its exit status, or 128 + the signal that ended it.
  int wait();

 private:
  static std::string text_of(const Fd& file);
  [[noreturn]] void become(const Words& words, const Circumstances& circumstances) const;

  Fd out_;
  Fd err_;
  pid_t pid_ = -1;
  bool reaped_ = false;
  int status_ = 0;
};

/// How a program ended, and what it said.
struct Ended {
  int status = 0;
  std::string out;
  std::string err;
};
Ended run(const Words& words, const Circumstances& circumstances = {});

/// A mount, and the lockctl under test told of it by LOCKFS_MOUNT.
class LockctlTest : public MountTest {
 protected:
  /// The command line `lockctl WORDS`.
  static Words line(const Words& words);
  Circumstances here(uid_t uid = 0) const;
  Ended lockctl(const Words& words, uid_t uid = 0) const { return run(line(words), here(uid)); }
  /// Is somebody inside `lockctl run`, with the lock?
  bool eventually_held(const std::string& name) const;
};

}  // namespace lockfs::test
