// SPDX-License-Identifier: MIT
#include "ctl/open_locks.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "ctl/process.h"

namespace lockfs::ctl {
namespace {

// The inode number of an open file, as fdinfo has it since Linux 5.14; 0 if it has none.
ino_t inode_of(pid_t pid, const std::string& fd) {
  const std::string info = read_file(proc(pid, "fdinfo/" + fd)).value_or("");
  const size_t at = info.find("\nino:");
  return at == std::string::npos ? 0 : std::strtoull(info.c_str() + at + 5, nullptr, 10);
}

}  // namespace

std::string held_mode(const std::string& link) {
  std::array<char, 64> value{};
  const ssize_t n = getxattr(link.c_str(), "user.lockfs.mode", value.data(), value.size());
  const std::string mode(value.data(), n > 0 ? static_cast<size_t>(n) : 0);
  return mode == "none" || mode == "free" ? "" : mode;
}

std::optional<std::vector<OpenLock>> open_locks(pid_t pid, const std::map<ino_t, dev_t>& locks) {
  std::vector<OpenLock> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(proc(pid, "fd").c_str()), closedir);
  if (!dir && (errno == EACCES || errno == EPERM)) return std::nullopt;
  while (const dirent* entry = dir ? readdir(dir.get()) : nullptr) {
    const std::string fd = entry->d_name;
    const std::string link = proc(pid, "fd/" + fd);
    const ino_t inode = fd.starts_with(".") ? 1 : inode_of(pid, fd);
    struct stat attributes {};
    if (inode != 0 && !locks.contains(inode)) continue;
    if (stat(link.c_str(), &attributes) != 0) continue;
    const auto lock = locks.find(attributes.st_ino);
    if (lock == locks.end() || lock->second != attributes.st_dev) continue;
    const std::string mode = held_mode(link);
    if (!mode.empty()) found.push_back({std::atoi(fd.c_str()), lock->first, mode});
  }
  return found;
}

}  // namespace lockfs::ctl
