// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "ctl/exit_code.h"
#include "ctl/picture.h"
#include "ctl/words.h"

namespace lockfs::ctl {

struct WaitsOptions {
  std::string name;  ///< Empty: all.
  bool dot = false;
  bool json = false;
};

/// One that a waiter waits for.
struct Blocker {
  pid_t pid = 0;
  std::string comm;
  std::string holds;  ///< "none" if it waits ahead in the queue, too.
  std::string wants;  ///< "none" if it does not wait.
};

/// One process that waits for one lock.
struct Wait {
  LockPath lock;
  Waiter who;
  bool cycle = false;             ///< It waits for itself, by way of others: a deadlock.
  std::vector<Blocker> blockers;  ///< Those who hold first.
  nlohmann::json raw;
};

/// Reads `.lockfs/waits`, as JSON.
std::vector<Wait> to_waits(const nlohmann::json& raw);

/// Those that have to do with a lock: its waits, and all that are linked to one of these by a
/// process that waits or is waited for.
std::vector<Wait> about(const std::vector<Wait>& waits, const LockPath& lock);

/// A tree a process that waits for nobody: below it those who wait for it. A deadlock has no such
/// process; there the tree begins with the one who waits longest, and says so.
std::string waits_as_tree(const std::vector<Wait>& waits, const Style& style);

/// A graph for dot(1): an arrow from who waits to whom it waits for, red in a deadlock.
std::string waits_as_dot(const std::vector<Wait>& waits);

/// `lockctl waits`.
ExitCode show_waits(const MountPoint& mount, const WaitsOptions& options);

}  // namespace lockfs::ctl
