// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "ctl/waits_tree.h"

namespace lockfs::ctl {

/// Who waits may have inherited the descriptor through which another lock is held: the flock(1) of
/// a script that runs under flock(1) has. That lock is not released before its wait ends, so it
/// blocks whoever waits for it as much as the holder does. It comes to stand before the holder, and
/// the circles that this closes are marked: the mount, which knows only who has taken a lock, does
/// not see them. Looks at the descriptors of those who wait, so far as the caller may.
void add_heirs(const MountPoint& mount, std::vector<Wait>& waits);

}  // namespace lockfs::ctl
