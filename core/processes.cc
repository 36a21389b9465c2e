// SPDX-License-Identifier: MIT
#include "core/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>
#include <vector>

namespace lockfs {
namespace {

std::string proc(pid_t pid, std::string_view file) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(file);
}

// /proc files have no size and come whole in one read if the buffer is large enough.
std::string slurp(const std::string& path) {
  std::string text(8192, '\0');
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t n = read(fd, text.data(), text.size());
  close(fd);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

// The value behind `key` ("Tgid:") in a file of lines.
std::string_view field(std::string_view text, std::string_view key) {
  size_t at = text.starts_with(key) ? 0 : text.find("\n" + std::string(key));
  if (at == std::string_view::npos) return {};
  if (at != 0) ++at;
  text.remove_prefix(at + key.size());
  text = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  return text;
}

template <typename T>
T number(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// When a process began, on the steady clock; fields of stat(5) behind the last ')', which a
// command's name cannot fake.
TimePoint started(pid_t process) {
  const std::string stat = slurp(proc(process, "stat"));
  const size_t paren = stat.rfind(')');
  if (paren == std::string::npos) return TimePoint::max();
  std::istringstream words(stat.substr(paren + 1));
  std::string word;
  for (int i = 3; i <= 22; ++i) words >> word;  // starttime is field 22.
  const auto ticks = number<uint64_t>(word);
  // stat counts from boot with the time asleep, the steady clock without it.
  timespec boot{};
  timespec mono{};
  clock_gettime(CLOCK_BOOTTIME, &boot);
  clock_gettime(CLOCK_MONOTONIC, &mono);
  const auto asleep = std::chrono::seconds(boot.tv_sec - mono.tv_sec) +
                      std::chrono::nanoseconds(boot.tv_nsec - mono.tv_nsec);
  const auto since_boot = std::chrono::nanoseconds(
      ticks * (1000000000ULL / static_cast<uint64_t>(sysconf(_SC_CLK_TCK))));
  return TimePoint(since_boot - asleep);
}

// The inode that the link `name` in /proc/PID/fd leads to; 0: none. It is opened as a path, which
// asks nothing of the file, and read of there. The process's own fdinfo would ask: epoll's waits
// for a mutex that another process holds while it waits for our answer to POLL.
uint64_t inode_of(int directory, const char* name) {
  const int path = openat(directory, name, O_PATH | O_CLOEXEC);
  if (path < 0) return 0;
  const std::string info = slurp("/proc/self/fdinfo/" + std::to_string(path));
  close(path);
  return number<uint64_t>(field(info, "ino:"));
}

// Has a process, among the descriptors looked at, so many different open descriptions of an inode?
bool has_descriptions(pid_t process, uint64_t inode, size_t wanted) {
  std::vector<int> distinct;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(proc(process, "fd").c_str()), closedir);
  int looks = ProcProcesses::kMostDescriptors;
  while (dir && distinct.size() < wanted) {
    const dirent* entry = readdir(dir.get());
    if (entry == nullptr || looks == 0) return false;
    if (entry->d_name[0] == '.') continue;
    --looks;
    if (inode_of(dirfd(dir.get()), entry->d_name) != inode) continue;
    const int fd = number<int>(entry->d_name);
    const bool known = std::any_of(distinct.begin(), distinct.end(), [&](int other) {
      return syscall(SYS_kcmp, process, process, KCMP_FILE, fd, other) == 0;
    });
    if (!known) distinct.push_back(fd);
  }
  return distinct.size() >= wanted;
}

// "0::/libpod_parent/libpod-<64 hex>", ".../docker/<64 hex>", "/<id>": the last part that looks
// like a runtime's id, else nothing.
std::string container_of_cgroup(const std::string& cgroup) {
  std::istringstream lines(cgroup);
  std::string line;
  while (std::getline(lines, line)) {
    for (const std::string_view mark : {"libpod-", "docker-", "/docker/", "cri-containerd-"}) {
      const size_t at = line.find(mark);
      if (at == std::string::npos) continue;
      const std::string id = line.substr(at + mark.size(), 64);
      const size_t hex = id.find_first_not_of("0123456789abcdef");
      if ((hex == std::string::npos ? id.size() : hex) >= 12) return id.substr(0, 12);
    }
  }
  return {};
}

// Of PIDFD_GET_PID_NAMESPACE (Linux 6.11), which Debian 12's headers do not know.
constexpr unsigned long kGetPidNamespace = _IO(0xFF, 5);

// The pid namespace of a process, as its link in /proc reads: "pid:[4026532204]". That link itself
// must not be read here, see processes.h.
std::string pid_namespace(pid_t process) {
  std::string name = "nested pid namespace";
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (pidfd < 0) return name;
  const int space = ioctl(pidfd, kGetPidNamespace, 0);
  struct stat attr {};
  if (space >= 0 && fstat(space, &attr) == 0) name = "pid:[" + std::to_string(attr.st_ino) + "]";
  if (space >= 0) close(space);
  close(pidfd);
  return name;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

pid_t ProcProcesses::process_of(pid_t tid) {
  if (tid <= 0) return 0;
  return number<pid_t>(field(slurp(proc(tid, "status")), "Tgid:"));
}

bool ProcProcesses::sole_releaser(pid_t process, TimePoint since, uint64_t inode,
                                  size_t descriptions) {
  const std::string status = slurp(proc(process, "status"));
  if (number<pid_t>(field(status, "Tgid:")) != process) return false;
  if (number<int>(field(status, "Threads:")) != 1) return false;
  // One clock tick of slack: stat rounds down.
  if (started(process) > since) return false;
  return has_descriptions(process, inode, descriptions);
}

bool ProcProcesses::may_signal(uid_t sender, pid_t process) {
  const std::string status = slurp(proc(process, "status"));
  std::istringstream uids{std::string(field(status, "Uid:"))};
  uid_t real = 0;
  uid_t effective = 0;
  uid_t saved = 0;
  if (!(uids >> real >> effective >> saved)) return false;
  return sender == 0 || sender == real || sender == saved;
}

ProcessInfo ProcProcesses::describe(pid_t tid) {
  ProcessInfo info;
  const std::string status = slurp(proc(tid, "status"));
  info.process = number<pid_t>(field(status, "Tgid:"));
  if (info.process == 0) return info;
  std::string comm = slurp(proc(info.process, "comm"));
  while (!comm.empty() && comm.back() == '\n') comm.pop_back();
  info.comm = comm;
  info.container = container_of_cgroup(slurp(proc(tid, "cgroup")));
  if (info.container.empty()) {
    // One number for each pid namespace from ours down to its own.
    const std::string_view numbers = field(status, "NSpid:");
    if (numbers.find_first_of(" \t") != std::string_view::npos) {
      info.container = pid_namespace(info.process);
    }
  }
  return info;
}

}  // namespace lockfs
