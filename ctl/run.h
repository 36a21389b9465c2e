// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "ctl/acquire.h"

namespace lockfs::ctl {

struct RunOptions {
  std::string name;
  AcquireOptions acquire;
  bool shared = false;
  int conflict_exit_code = 1;
  bool close = false;    ///< The command does not inherit the descriptor.
  bool no_fork = false;  ///< lockctl becomes the command.
  bool quiet = false;    ///< Nothing is said when the lock is not to be had in time.
  bool verbose = false;  ///< Says on stderr how long the lock took.
  std::string shell_command;
  std::string onlost = "term";  ///< What becomes of the command, and of all that it has started,
                                ///< when the lock is lost.
  std::vector<std::string> command;
};

/// `lockctl run`: takes the lock, runs the command while it holds, and ends as that ends: with its
/// status, 128 + N if signal N ended it, or kLost. It dies of N itself if it got that one too.
///
/// The command gets the signals that lockctl gets, from the moment it exists; until then a signal
/// ends lockctl, and the command never begins. It inherits the lock's descriptor, so that the lock
/// stays for as long as it runs, whatever becomes of lockctl; with `close` it does not, and the
/// system ends it by SIGTERM when lockctl dies.
int run_command(const MountPoint& mount, RunOptions options);

}  // namespace lockfs::ctl
