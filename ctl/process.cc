// SPDX-License-Identifier: MIT
#include "ctl/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <sstream>

namespace lockfs::ctl {
namespace {

// The first number behind a key of /proc/PID/status.
std::optional<long> status_number(pid_t pid, const std::string& key) {
  const std::string status = read_file(proc(pid, "status")).value_or("");
  const size_t at = status.find("\n" + key + ":\t");
  if (at == std::string::npos) return std::nullopt;
  return std::strtol(status.c_str() + at + key.size() + 3, nullptr, 10);
}

}  // namespace

std::optional<std::string> read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  auto text = read_file(fd);
  const int error = errno;
  close(fd);
  errno = error;
  return text;
}

std::optional<std::string> read_file(int fd) {
  std::string text;
  std::array<char, 65536> piece{};
  for (;;) {
    const ssize_t n = pread(fd, piece.data(), piece.size(), static_cast<off_t>(text.size()));
    if (n == 0) return text;
    if (n > 0) text.append(piece.data(), static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) return std::nullopt;
  }
}

std::string proc(pid_t pid, const std::string& file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

std::vector<pid_t> processes() {
  std::vector<pid_t> all;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/proc"), closedir);
  while (const dirent* entry = dir ? readdir(dir.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error == std::errc() && end == name.data() + name.size()) all.push_back(pid);
  }
  std::sort(all.begin(), all.end());
  return all;
}

std::string comm_of(pid_t pid) {
  std::string comm = read_file(proc(pid, "comm")).value_or("");
  while (!comm.empty() && comm.back() == '\n') comm.pop_back();
  return comm;
}

std::string command_of(pid_t pid) {
  std::string command = read_file(proc(pid, "cmdline")).value_or("");
  while (!command.empty() && command.back() == '\0') command.pop_back();
  std::replace(command.begin(), command.end(), '\0', ' ');
  const std::string comm = command.empty() ? comm_of(pid) : "";
  return comm.empty() ? command : "[" + comm + "]";
}

pid_t parent_of(pid_t pid) { return static_cast<pid_t>(status_number(pid, "PPid").value_or(0)); }

std::vector<pid_t> descendants_of(pid_t ancestor) {
  std::array<char, PATH_MAX> self{};
  const ssize_t n = readlink("/proc/self", self.data(), self.size());
  const std::string number(self.data(), n > 0 ? static_cast<size_t>(n) : 0);
  if (number != std::to_string(getpid())) return {};  // Numbers of another pid namespace.
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : processes()) children.emplace(parent_of(pid), pid);
  std::vector<pid_t> all = {ancestor};
  for (size_t i = 0; i < all.size(); ++i) {
    const auto [begin, end] = children.equal_range(all[i]);
    for (auto child = begin; child != end; ++child) all.push_back(child->second);
  }
  all.erase(all.begin());
  return all;
}

std::optional<uid_t> user_of(pid_t pid) {
  const auto uid = status_number(pid, "Uid");
  if (!uid) return std::nullopt;
  return static_cast<uid_t>(*uid);
}

uid_t uid_outside(const std::string& uid_map, uid_t uid) {
  std::istringstream lines(uid_map);
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  while (lines >> inside >> outside >> count) {
    if (uid >= inside && uid - inside < count) return static_cast<uid_t>(outside + uid - inside);
  }
  return uid;
}

std::string user_name(uid_t uid) {
  const passwd* user = getpwuid(uid);
  return user != nullptr ? user->pw_name : std::to_string(uid);
}

}  // namespace lockfs::ctl
