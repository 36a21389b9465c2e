// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "system/mountinfo.h"
#include "system/open_file.h"

namespace lockfs {

/// The mount with this id in the text of a mountinfo; nullopt if it has none.
std::optional<MountEntry> mount_with_id(std::string_view mountinfo, std::string_view id);

/// The uppermost mount at `path`; nullopt if nothing is mounted there, or nobody can tell. It asks
/// the kernel alone: also for a place whose daemon is stopped, or is ourselves.
std::optional<MountEntry> mount_at(const std::string& path);

/// A file that no other user can open, and so lock: /run/lockfs/turns of root, lockfs-turns in the
/// XDG_RUNTIME_DIR of others. Made if it is not there; no descriptor where that is not to be had.
OpenFile turns_file();

/// The turn to mount at a directory. Two lockfs at one place would be two lock tables, and so two
/// holders of one lock: only one may mount there at a time, and none over a lockfs.
class MountTurn {
 public:
  /// Takes it. In words, why it cannot be had: a lockfs is there, or another one has its turn. It
  /// is a lock on turns_file(), for each place another byte; without that file on the directory
  /// itself, and one that we may not read, or whose filesystem has no flock(2), is mounted at
  /// unguarded.
  static tl::expected<MountTurn, std::string> take(const std::string& place);
  /// For a place that no path names: there is nothing to take.
  MountTurn() = default;
  ~MountTurn() { end(); }
  MountTurn(MountTurn&& other) noexcept = default;
  MountTurn& operator=(MountTurn&& other) noexcept = default;

  /// The mount answers, and tells of itself: ends it, in the processes that were forked as well.
  void end();

 private:
  OpenFile file_;  ///< Locked for as long as the turn lasts.
};

}  // namespace lockfs
