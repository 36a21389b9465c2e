// SPDX-License-Identifier: MIT
#include "fs/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "backends/byte_lock.h"

namespace lockfs {
namespace {

// A descriptor of a place without its filesystem: nobody is asked for it.
class PlaceFd {
 public:
  explicit PlaceFd(const std::string& path) : file_(open(path.c_str(), O_PATH | O_CLOEXEC)) {}

  /// The same place, whatever is mounted over it meanwhile.
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.get()); }
  /// The same for each descriptor of the place, and hardly for another place.
  int64_t number() const {
    struct stat info {};
    fstat(file_.get(), &info);
    const uint64_t both = info.st_ino ^ (uint64_t{info.st_dev} << 32U);
    return static_cast<int64_t>(both & ((uint64_t{1} << 62U) - 1));
  }
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

OpenFile turns_file() {
  const uid_t self = geteuid();
  const char* runtime = getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe)
  std::string path = self == 0 ? "/run/lockfs" : runtime != nullptr ? runtime : "";
  if (self == 0) mkdir(path.c_str(), 0700);
  struct stat info {};
  const bool there = lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  if (!there || info.st_uid != self || (info.st_mode & 077U) != 0) return OpenFile();
  path += self == 0 ? "/turns" : "/lockfs-turns";
  return OpenFile(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

tl::expected<MountTurn, std::string> MountTurn::take(const std::string& place) {
  const PlaceFd before(place);
  if (auto refusal = refusal_at(place, mount_at(before))) return tl::make_unexpected(*refusal);
  MountTurn turn;
  turn.file_ = turns_file();
  bool taken = false;
  if (turn.file_) {
    const int64_t byte = before.number();
    taken = set_bytes(turn.file_.get(), ByteLock::kWrite, byte, byte) == LockErrc::kWouldBlock;
  } else {
    // By its own path it would be a lockfs that was mounted just now, and its daemon asked.
    turn.file_ = OpenFile(open(before.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    taken = turn.file_ && flock(turn.file_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  }
  if (taken) {
    return tl::make_unexpected(
        place +
        ": another lockfs is being mounted there just now; lslocks tells which process has "
        "/run/lockfs/turns, or the directory, locked");
  }
  if (auto refusal = refusal_at(place, mount_at(place))) return tl::make_unexpected(*refusal);
  return turn;
}

void MountTurn::end() {
  if (!file_) return;
  set_bytes(file_.get(), ByteLock::kNone, 0, std::numeric_limits<int64_t>::max() - 1);
  flock(file_.get(), LOCK_UN);
  file_ = OpenFile();
}

}  // namespace lockfs
