// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "ctl/picture.h"

namespace lockfs::ctl {

/// A descriptor of a lock's file that some process has open, and through which the lock is held.
struct Descriptor {
  pid_t pid = 0;
  int fd = -1;
  std::string mode;        ///< What its open file description holds.
  size_t description = 0;  ///< The same number: the same open file description.
  std::string comm;
  std::string command;
  uid_t uid = 0;

  /// Where it got the descriptor from, unless it took the lock itself. The pid is 0 if it is not
  /// to be seen.
  struct Origin {
    pid_t pid = 0;
    std::string comm;
    bool exited = false;
  };
  std::optional<Origin> inherited;
  /// It has opened the file, and a process that has exited took the lock for it: `flock 9`.
  bool opened = false;
};

/// What a look at all processes has shown.
struct Descriptors {
  std::vector<Descriptor> all;
  size_t unseen = 0;  ///< Processes whose descriptors the caller may not see.
};

/// Finds every descriptor that holds this lock, in every process, whatever path it was opened by:
/// bind mounts and containers included. Asks the mount, so never call it from its daemon.
Descriptors descriptors_of(const MountPoint& mount, const Picture& picture);

/// "pid 4711 (sleep) inherited it from pid 4700 (bash), which has exited".
std::string in_words(const Descriptor& descriptor);

}  // namespace lockfs::ctl
