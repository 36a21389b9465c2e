// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace lockfs::test {

/// Why processes of this build have a second thread, or take signals late: the thread sanitizer.
/// Null without it. A test of single-threaded processes is skipped then.
#if defined(__SANITIZE_THREAD__)
inline constexpr const char* kUnlikeProcesses =
    "the thread sanitizer adds a thread, delays signals";
#else
inline constexpr const char* kUnlikeProcesses = nullptr;
#endif

/// By a sanitizer all takes more memory, which is never given back, and more time.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// A real mount of the lockfs binary under test, at a directory of its own, served by a process of
/// its own. Unmounted and gone when this ends. Throws std::runtime_error if it cannot mount.
class Mount {
 public:
  /// `arguments` go to lockfs before SOURCE and MOUNTPOINT, for example {"-o", "capacity=3"}.
  explicit Mount(std::vector<std::string> arguments = {}, std::string source = "memory:");
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  const std::string& path() const { return path_; }
  /// The path of a lock, "default/NAME", or of "LOCKSPACE/NAME".
  std::string lock(const std::string& name) const;
  pid_t daemon() const { return daemon_; }
  /// What the daemon has logged so far.
  std::string log() const;

 private:
  std::string path_;
  std::string log_path_;
  pid_t daemon_ = -1;
};

/// The lockfs under test: LOCKFS_BINARY, or the one that was built.
std::string lockfs_binary();

/// A child process that runs `body` and exits with what it returns. Killed and reaped at the end.
class Child {
 public:
  explicit Child(const std::function<int()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// Waits for its end: its exit status, or 128 + the signal that ended it.
  int wait();

 private:
  pid_t pid_ = -1;
  bool reaped_ = false;
};

/// Waits until `condition` holds, for at most `seconds`; false when it never did. It looks again
/// every millisecond: for conditions of other processes that nothing announces.
bool eventually(const std::function<bool()>& condition, double seconds = 10);

/// The whole of a file; empty when it cannot be read.
std::string slurp(const std::string& path);

/// write(2) of the whole text: 0, or its errno.
int write_command(int fd, const std::string& text);

/// The value of a top-level or nested key of a lock's picture, as in "stats.grants"; "" if absent.
std::string picture_value(const std::string& yaml, const std::string& key);

}  // namespace lockfs::test
