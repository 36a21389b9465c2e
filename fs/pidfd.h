// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <memory>
#include <unordered_map>

namespace lockfs {

/// A process, by a descriptor: no other process can be taken for it later. Closed at the end.
class Pidfd {
 public:
  Pidfd(int fd, pid_t process) : fd_(fd), process_(process) {}
  ~Pidfd();
  Pidfd(const Pidfd&) = delete;
  Pidfd& operator=(const Pidfd&) = delete;
  pid_t process() const { return process_; }
  /// Sends it a signal; 0 only asks whether it is there. False: errno says why.
  bool signal(int number) const;

 private:
  int fd_;
  pid_t process_;
};

/// One Pidfd for each process, shared by all who keep it. On the loop thread only.
class Pidfds {
 public:
  /// Null when it cannot be had: errno says why.
  std::shared_ptr<const Pidfd> of(pid_t process);

 private:
  std::unordered_map<pid_t, std::weak_ptr<const Pidfd>> known_;
  size_t purge_at_ = 64;  ///< Those that nobody keeps are dropped at this size.
};

}  // namespace lockfs
