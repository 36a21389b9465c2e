// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace lockfs {

/// A mount, as /proc/PID/mountinfo has it.
struct MountEntry {
  std::string id;
  std::string device;  ///< "0:53"; of a FUSE mount the second is its connection's number.
  std::string root;    ///< "/": the whole of it; else the directory of it that is mounted.
  std::string place;
  std::string type;  ///< "fuse.lockfs"
  std::string source;
};

/// All mounts in the text of a mountinfo, those that lie upon others behind them.
std::vector<MountEntry> mounts_of(std::string_view mountinfo);

}  // namespace lockfs
