// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "ctl/mount_point.h"

namespace lockfs::ctl {

struct TopOptions {
  double delay = 1;              ///< Seconds between two looks.
  std::string sort = "waiters";  ///< A column's heading, in any case.
  std::string lockspace;         ///< Empty: all.
};

/// `lockctl top`: what is locked, live, until `q` is pressed or a signal ends it. Leaves the
/// terminal as it was. The exit status: 0, or 128 + N after signal N.
int show_top(const MountPoint& mount, const TopOptions& options);

}  // namespace lockfs::ctl
