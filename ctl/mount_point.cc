// SPDX-License-Identifier: MIT
#include "ctl/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "ctl/failure.h"
#include "ctl/process.h"
#include "ctl/words.h"
#include "system/mountinfo.h"
#include "system/open_file.h"

namespace lockfs::ctl {
namespace {

constexpr auto kHowToMount =
    "mount one, for example: lockfs memory: /mnt/locks; in a container, bind the host's into it";

std::string absolute(const std::string& path) {
  std::array<char, PATH_MAX> real{};
  return realpath(path.c_str(), real.data()) != nullptr ? real.data() : path;
}

bool is_below(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory == "/" ? "/" : directory + "/");
}

std::string listed(const std::vector<MountPoint>& mounts) {
  std::string out;
  for (const MountPoint& mount : mounts) {
    out += fmt::format("\n  {}  ({})", printable(mount.path), printable(mount.source));
  }
  return out;
}

// One a device; the others are bind mounts of it.
std::vector<MountPoint> without_copies(const std::vector<MountPoint>& mounts) {
  std::vector<MountPoint> out;
  std::set<std::string> seen;
  for (const MountPoint& mount : mounts) {
    if (seen.insert(mount.device).second) out.push_back(mount);
  }
  return out;
}

// Is its path that of something mounted above it? To open a path alone does not ask the mount.
bool is_hidden(const MountPoint& mount) {
  const OpenFile file(open(mount.path.c_str(), O_PATH | O_CLOEXEC));
  if (file.get() < 0) return errno == ENOENT || errno == ENOTDIR;
  const std::string info =
      read_file("/proc/self/fdinfo/" + std::to_string(file.get())).value_or("");
  const size_t at = info.find("mnt_id:");
  return at != std::string::npos && std::atoi(info.c_str() + at + 7) != mount.id;
}

MountPoint wanted_mount(const std::vector<MountPoint>& mounts, const std::string& path,
                        const char* said_by) {
  for (const bool resolved : {false, true}) {  // To resolve it asks the mount, which may hang.
    const std::string place = resolved ? absolute(path) : path;
    for (const MountPoint& mount : mounts) {
      if (mount.path != place) continue;
      if (mount.root == "/") return mount;
      throw Failure(ExitCode::kUnavailable,
                    fmt::format("{} {}: {} of a lockfs alone is mounted there; lockctl needs the "
                                "whole of it",
                                said_by, printable(path), printable(mount.root)));
    }
  }
  throw Failure(ExitCode::kUnavailable,
                fmt::format("{} {}: no lockfs is mounted there; {}{}", said_by, printable(path),
                            mounts.empty() ? kHowToMount : "these are:", listed(mounts)));
}

// Parts of one, too.
std::vector<MountPoint> all_in(std::string_view mountinfo) {
  std::vector<MountPoint> mounts;
  for (const MountEntry& entry : mounts_of(mountinfo)) {
    // What is mounted over another is what its path shows; the kernel lists it later.
    std::erase_if(mounts, [&](const MountPoint& other) { return other.path == entry.place; });
    if (entry.type != "fuse.lockfs") continue;
    mounts.push_back(
        {entry.place, entry.source, entry.device, entry.root, std::atoi(entry.id.c_str())});
  }
  return mounts;
}

std::vector<MountPoint> whole(std::vector<MountPoint> mounts) {
  std::erase_if(mounts, [](const MountPoint& mount) { return mount.root != "/"; });
  return mounts;
}

}  // namespace

std::vector<MountPoint> mounts_in(std::string_view mountinfo) { return whole(all_in(mountinfo)); }

MountPoint find_mount(const std::string& wanted, const std::string& name) {
  const auto mountinfo = read_file("/proc/self/mountinfo");
  if (!mountinfo) {
    throw Failure(ExitCode::kUnavailable,
                  fmt::format("/proc/self/mountinfo, which tells where lockfs is mounted: {}",
                              std::strerror(errno)));
  }
  std::vector<MountPoint> parts = all_in(*mountinfo);
  std::erase_if(parts, is_hidden);
  if (!wanted.empty()) return wanted_mount(parts, wanted, "--mount");
  const std::vector<MountPoint> all = whole(parts);
  const MountPoint* below = nullptr;
  for (const MountPoint& mount : all) {
    const bool has = name.starts_with("/") && is_below(name, mount.path);
    if (has && (below == nullptr || below->path.size() < mount.path.size())) below = &mount;
  }
  if (below != nullptr) return *below;
  const char* set = std::getenv("LOCKFS_MOUNT");
  if (set != nullptr && *set != '\0') return wanted_mount(parts, set, "LOCKFS_MOUNT");
  const std::vector<MountPoint> mounts = without_copies(all);
  if (mounts.size() == 1) return mounts.front();
  if (mounts.empty()) {
    throw Failure(ExitCode::kUnavailable,
                  fmt::format("no lockfs is mounted here; {}", kHowToMount));
  }
  throw Failure(ExitCode::kUsage,
                fmt::format("{} lockfs are mounted here; choose one by --mount or LOCKFS_MOUNT:{}",
                            mounts.size(), listed(mounts)));
}

void fail_if_ended(const MountPoint& mount, const std::string& what, int error) {
  // ECONNREFUSED: the daemon and the kernel have not agreed.
  if (error != ENOTCONN && error != ECONNABORTED && error != ECONNREFUSED) return;
  throw Failure(ExitCode::kUnavailable,
                fmt::format("{0}: the lockfs of {1} has ended; umount -l {1}, and mount it again",
                            what, printable(mount.path)));
}

void need_lockspace(const MountPoint& mount, const std::string& what, const std::string& name) {
  struct stat attributes {};
  const std::string path = mount.path + "/" + name;
  if (stat(path.c_str(), &attributes) == 0) {
    if (access(path.c_str(), X_OK) == 0 || errno != EACCES) return;
    throw Failure(exit_code_of(EACCES), fmt::format("{}: {} is not yours to see; ls -ld {} shows "
                                                    "whose it is",
                                                    what, printable(name), printable(path)));
  }
  fail_if_ended(mount, what, errno);
  if (errno != ENOENT && errno != ENOTDIR) return;
  throw Failure(
      ExitCode::kNoLock,
      fmt::format("{}: there is no lockspace {}; ls {} shows which are, mkdir {} makes it", what,
                  printable(name), printable(mount.path), printable(path)));
}

std::string read_info(const MountPoint& mount, const std::string& name) {
  const auto text = read_file(mount.info_file(name));
  if (text) return *text;
  const int error = errno;
  const std::string file = printable(mount.info_file(name));
  fail_if_ended(mount, file, error);
  throw Failure(exit_code_of(error), fmt::format("{}: {}", file, std::strerror(error)));
}

}  // namespace lockfs::ctl
