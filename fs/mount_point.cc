// SPDX-License-Identifier: MIT
#include "fs/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace lockfs {
namespace {

// A descriptor of a place without its filesystem: nobody is asked for it.
class PlaceFd {
 public:
  explicit PlaceFd(const std::string& path) : file_(open(path.c_str(), O_PATH | O_CLOEXEC)) {}

  /// The same place, whatever is mounted over it meanwhile.
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.get()); }
  /// The id of the mount that it is on; empty if nobody can tell.
  std::string mount_id() const {
    std::ifstream info("/proc/self/fdinfo/" + std::to_string(file_.get()));
    for (std::string key, value; info >> key >> value;) {
      if (key == "mnt_id:") return value;
    }
    return {};
  }

 private:
  OpenFile file_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<MountEntry> mount_at(const PlaceFd& place) {
  const std::string id = place.mount_id();
  if (id.empty()) return std::nullopt;
  auto mount = mount_with_id(text_of("/proc/self/mountinfo"), id);
  std::error_code error;
  const auto path = std::filesystem::read_symlink(place.path(), error);
  if (!mount || error || mount->place != path) return std::nullopt;
  return mount;
}

std::optional<std::string> refusal_at(const std::string& path,
                                      const std::optional<MountEntry>& mount) {
  if (!mount || mount->type != "fuse.lockfs") return std::nullopt;
  return fmt::format(
      "{0}: a lockfs ({1}) is mounted there already; umount it first (umount -l {0} if its daemon "
      "is gone: ls {0} then says 'Transport endpoint is not connected')",
      path, mount->source);
}

}  // namespace

std::optional<MountEntry> mount_with_id(std::string_view mountinfo, std::string_view id) {
  for (MountEntry& mount : mounts_of(mountinfo)) {
    if (mount.id == id) return std::move(mount);
  }
  return std::nullopt;
}

std::optional<MountEntry> mount_at(const std::string& path) { return mount_at(PlaceFd(path)); }

tl::expected<MountTurn, std::string> MountTurn::take(const std::string& place) {
  const PlaceFd before(place);
  if (auto refusal = refusal_at(place, mount_at(before))) return tl::make_unexpected(*refusal);
  // By its own path it would be a lockfs that was mounted just now, and its daemon asked.
  MountTurn turn(open(before.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (turn.directory_ && flock(turn.directory_.get(), LOCK_EX | LOCK_NB) != 0 &&
      errno == EWOULDBLOCK) {
    return tl::make_unexpected(
        place +
        ": another lockfs is being mounted there just now; lslocks tells which process has the "
        "directory locked");
  }
  if (auto refusal = refusal_at(place, mount_at(place))) return tl::make_unexpected(*refusal);
  return turn;
}

void MountTurn::end() {
  if (!directory_) return;
  flock(directory_.get(), LOCK_UN);
  directory_ = OpenFile();
}

}  // namespace lockfs
