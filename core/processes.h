// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "core/timer_queue.h"

namespace lockfs {

/// This host's name, as those who read of our processes elsewhere know it.
std::string host_name();

/// What a person wants to know of a process.
struct ProcessInfo {
  pid_t process = 0;  ///< 0: out of sight or gone.
  std::string comm;
  std::string container;  ///< Empty on the host; else the runtime's id or "pid:[N]", its namespace.
};

/// Questions about processes on this host. Each answer may be out of date when it arrives.
class Processes {
 public:
  virtual ~Processes() = default;
  /// The process that thread `tid` belongs to; 0 when it is gone or out of sight.
  virtual pid_t process_of(pid_t tid) = 0;
  /// Is it certain that nothing but `process`, which waits, can release a lock of this inode
  /// that it took at `since`? It must have one thread, be older than `since`, and have at least
  /// `descriptions` open descriptions of the inode. Not certain when that takes long to find out.
  virtual bool sole_releaser(pid_t process, TimePoint since, uint64_t inode,
                             size_t descriptions) = 0;
  virtual ProcessInfo describe(pid_t tid) = 0;
};

/// Reads /proc, on the loop thread: nothing that waits for a process which may wait for us. One in
/// exec() that closes a descriptor of ours waits for our answer to FLUSH, and holds its
/// exec_update_lock, for which stat, ns/*, fd, exe, maps and kcmp(2) wait (Linux 6.18): both would
/// hang for ever. status, comm and cgroup do not wait. fdinfo/N waits for what its file does:
/// epoll's for a mutex that is held during a POLL of ours. sole_releaser() asks stat, fd and kcmp
/// too, but only of a process whose one thread waits for a lock, so is not in exec() until we
/// answer (a write is never asynchronous here: the mount has no FUSE_ASYNC_DIO); and of no file.
class ProcProcesses final : public Processes {
 public:
  pid_t process_of(pid_t tid) override;
  bool sole_releaser(pid_t process, TimePoint since, uint64_t inode, size_t descriptions) override;
  ProcessInfo describe(pid_t tid) override;
  /// sole_releaser() looks at so many descriptors of a process, the smallest, and at no others.
  static constexpr int kMostDescriptors = 256;
  /// kill(2)'s rule: may a process of this user signal that one?
  bool may_signal(uid_t sender, pid_t process);
};

}  // namespace lockfs
