// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace lockfs::ctl {

/// A mount of lockfs, as this process sees it.
struct MountPoint {
  std::string path;
  std::string source;  ///< The backend's URL.
  std::string device;  ///< "0:40"; bind mounts of one mount have the same.
  std::string root;    ///< "/": the whole of it; else the directory of it that is mounted.
  int id = 0;          ///< The kernel's number of it.

  std::string info_file(const std::string& name) const { return path + "/.lockfs/" + name; }
};

/// All whole mounts of lockfs in the text of /proc/PID/mountinfo; of those that lie upon each other
/// the uppermost, of bind mounts of one mount all.
std::vector<MountPoint> mounts_in(std::string_view mountinfo);

/// The mount to talk to: `wanted` (of --mount) if it is not empty, else the one that has the
/// absolute path `name`, else LOCKFS_MOUNT, else the only one. Failure when there is none, or when
/// that leaves several: its words list them.
MountPoint find_mount(const std::string& wanted, const std::string& name = "");

/// Failure, with what to do, if this errno says that the mount's daemon has ended; `what` stands
/// before the words.
void fail_if_ended(const MountPoint& mount, const std::string& what, int error);

/// Failure if there is no such lockspace; `what` stands before the words.
void need_lockspace(const MountPoint& mount, const std::string& what, const std::string& name);

/// A text file of the mount, as in ".lockfs/waits". Failure when it does not answer.
std::string read_info(const MountPoint& mount, const std::string& name);

}  // namespace lockfs::ctl
