// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "ctl/mount_point.h"

namespace lockfs::ctl {

/// Which lock: its lockspace and its file's name, in which "%2F" and "%25" stand for '/' and '%'.
struct LockPath {
  std::string lockspace = "default";
  std::string file;

  /// "lockspace/file", as it is written to name it.
  std::string name() const { return lockspace + "/" + file; }
  /// The same for a terminal.
  std::string shown() const;
  std::string path(const MountPoint& mount) const { return mount.path + "/" + name(); }
};

/// The name of a lock's file: what cannot stand in one is encoded.
std::string file_name(const std::string& lock);

/// The lock of a file: the reverse.
std::string lock_name(const std::string& file);

/// Whether a lockspace or the file of a lock can have this name.
bool is_file_name(const std::string& name);

/// `name` as an absolute path, if it is written as a path ("/..." or "./..." or "../..."); else as
/// it is. Its directory is looked up, the file itself need not exist.
std::string with_real_directory(const std::string& name);

/// Reads "name", "lockspace/name" or an absolute path below the mount. Failure says what is wrong.
LockPath parse_lock_path(const MountPoint& mount, const std::string& name);

}  // namespace lockfs::ctl
