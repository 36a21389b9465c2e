// SPDX-License-Identifier: MIT
#include "ctl/mount_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <sstream>

#include "ctl/failure.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

constexpr auto kHowToMount =
    "mount one, for example: lockfs memory: /mnt/locks; in a container, bind the host's into it";

// mountinfo writes spaces and the like as "\040".
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string digits = text.substr(i, 1) == "\\" ? text.substr(i + 1, 3) : "";
    if (digits.size() == 3 && digits.find_first_not_of("01234567") == std::string::npos) {
      out += static_cast<char>(std::strtoul(digits.c_str(), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

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

MountPoint wanted_mount(const std::vector<MountPoint>& mounts, const std::string& path,
                        const char* said_by) {
  for (const bool resolved : {false, true}) {  // To resolve it asks the mount, which may hang.
    const std::string place = resolved ? absolute(path) : path;
    for (const MountPoint& mount : mounts) {
      if (mount.path == place) return mount;
    }
  }
  throw Failure(ExitCode::kUnavailable,
                fmt::format("{} {}: no lockfs is mounted there; {}{}", said_by, printable(path),
                            mounts.empty() ? kHowToMount : "these are:", listed(mounts)));
}

}  // namespace

std::vector<MountPoint> mounts_in(std::string_view mountinfo) {
  std::vector<MountPoint> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash));
    std::istringstream behind(line.substr(dash + 3));
    std::string id;
    std::string parent;
    std::string root;
    std::string type;
    MountPoint mount;
    before >> id >> parent >> mount.device >> root >> mount.path;
    behind >> type >> mount.source;
    mount.path = unescaped(mount.path);
    mount.source = unescaped(mount.source);
    // What is mounted over another is what its path shows; the kernel lists it later.
    std::erase_if(mounts, [&](const MountPoint& other) { return other.path == mount.path; });
    if (type == "fuse.lockfs" && root == "/") mounts.push_back(mount);
  }
  return mounts;
}

MountPoint find_mount(const std::string& wanted, const std::string& name) {
  const std::vector<MountPoint> all = mounts_in(read_file("/proc/self/mountinfo").value_or(""));
  if (!wanted.empty()) return wanted_mount(all, wanted, "--mount");
  const MountPoint* below = nullptr;
  for (const MountPoint& mount : all) {
    const bool has = name.starts_with("/") && is_below(name, mount.path);
    if (has && (below == nullptr || below->path.size() < mount.path.size())) below = &mount;
  }
  if (below != nullptr) return *below;
  const char* set = std::getenv("LOCKFS_MOUNT");
  if (set != nullptr && *set != '\0') return wanted_mount(all, set, "LOCKFS_MOUNT");
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

std::string read_info(const MountPoint& mount, const std::string& name) {
  const auto text = read_file(mount.info_file(name));
  if (text) return *text;
  if (errno == ENOTCONN || errno == ECONNABORTED) {
    throw Failure(ExitCode::kUnavailable,
                  fmt::format("the lockfs of {0} has ended; umount -l {0}, and mount it again",
                              printable(mount.path)));
  }
  throw Failure(exit_code_of(errno),
                fmt::format("{}: {}", printable(mount.info_file(name)), std::strerror(errno)));
}

}  // namespace lockfs::ctl
