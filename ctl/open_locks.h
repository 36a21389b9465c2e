// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lockfs::ctl {

/// A descriptor of a lock's file, through which the lock is held.
struct OpenLock {
  int fd = -1;
  ino_t inode = 0;
  std::string mode;  ///< What its open file description holds.
};

/// What the open file description behind a link of /proc/PID/fd holds; each has a node of its own,
/// so the answer is for it alone. Empty if it holds nothing.
std::string held_mode(const std::string& link);

/// Those that a process has of some locks, which are given by st_ino and st_dev of their files;
/// whatever path they were opened by. nullopt if the caller may not see them. Asks the mount, but
/// no other filesystem: one of another kind may hang.
std::optional<std::vector<OpenLock>> open_locks(pid_t pid, const std::map<ino_t, dev_t>& locks);

}  // namespace lockfs::ctl
