// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "ctl/lock_path.h"
#include "system/open_file.h"

namespace lockfs::ctl {

/// How a lock is asked for.
struct AcquireOptions {
  std::string mode = "EX";
  uint64_t size = 0;           ///< With the mode SLOT: how many slots there are.
  bool nonblock = false;       ///< Do not wait.
  std::optional<double> wait;  ///< Wait at most that many seconds; 0 is nonblock.
  std::string ttl;             ///< As in "5m"; empty: none.
  std::string note;
  std::string signal_when_lost;  ///< "TERM": the mount sends it to who took the lock.
};

/// What is written to the lock's file. `left` is what is left of `wait`.
std::string mode_string(const AcquireOptions& options,
                        std::optional<std::chrono::milliseconds> left);

/// Takes the lock; it is held until the file is closed, here and in all who inherit it. Waits in
/// write(2), in a process with a single thread, so that the mount can tell a deadlock; a signal
/// ends the wait as it ends the process. Failure: kNo if it is not to be had in time; kTryAgain for
/// a deadlock, which is found here, too, where this process has inherited the lock from a `run`.
OpenFile acquire(const MountPoint& mount, const LockPath& lock, const AcquireOptions& options);

/// The fencing token of what this open file holds.
std::string token_of(const OpenFile& held);

/// Why it was lost, in the mount's words; for an open file that has been told so.
std::string why_lost(const OpenFile& held);

}  // namespace lockfs::ctl
