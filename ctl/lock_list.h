// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "ctl/exit_code.h"
#include "ctl/mount_point.h"
#include "ctl/picture.h"

namespace lockfs::ctl {

struct ListOptions {
  std::string lockspace;  ///< Empty: all.
  bool waiting = false;   ///< Only locks that somebody waits for.
  bool mine = false;      ///< Only what the caller's user holds or waits for.
  bool all = false;       ///< Pinned names that nobody holds as well.
  bool json = false;
  bool no_headings = false;
  bool reverse = false;
  std::string user;  ///< Only what this user, a name or a number, holds or waits for.
  std::string mode;  ///< Only locks held in this mode.
  std::string sort = "name";
};

/// What a list can be sorted by.
const std::vector<std::string>& sort_keys();

/// Those that the options admit, in their order. Failure if an option makes no sense.
std::vector<Picture> chosen(std::vector<Picture> locks, const ListOptions& options);

/// `lockctl list`: a line a holder, and one for each lock that is waited for or pinned only.
ExitCode list_locks(const MountPoint& mount, const ListOptions& options);

}  // namespace lockfs::ctl
