// SPDX-License-Identifier: MIT
#include "tests/fs/mount_test.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace lockfs::test {

void Fd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

int flock_of(int fd, int operation) { return flock(fd, operation) == 0 ? 0 : errno; }

int fcntl_of(int fd, int command, int type) {
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  return fcntl(fd, command, &lock) == 0 ? 0 : errno;
}

std::string picture_of(int fd) {
  std::string text;
  std::array<char, 65536> piece{};
  ssize_t n = 0;
  while ((n = pread(fd, piece.data(), piece.size(), static_cast<off_t>(text.size()))) > 0) {
    text.append(piece.data(), static_cast<size_t>(n));
  }
  return text;
}

std::string value_of(int fd, const std::string& key) { return picture_value(picture_of(fd), key); }

std::string xattr_of(int fd, const std::string& name) {
  std::array<char, 4096> value{};
  const ssize_t n = fgetxattr(fd, name.c_str(), value.data(), value.size());
  return n < 0 ? "errno " + std::to_string(errno) : std::string(value.data(), size_t(n));
}

std::string mode_of(int fd) { return xattr_of(fd, "user.lockfs.mode"); }

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  DIR* dir = opendir(directory.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

bool sleeps_in(pid_t pid, long system_call) {
  const std::string proc = "/proc/" + std::to_string(pid);
  return slurp(proc + "/syscall").rfind(std::to_string(system_call) + " ", 0) == 0;
}

Fd MountTest::open(const std::string& name, int flags) const {
  return Fd(::open(mount_.lock(name).c_str(), flags | O_CLOEXEC, 0666));
}

Fd MountTest::hold(const std::string& name, const std::string& mode) const {
  Fd fd = open(name);
  EXPECT_TRUE(fd.valid()) << name;
  EXPECT_EQ(write_command(fd.get(), mode + " try"), 0) << mode << " on " << name;
  return fd;
}

int MountTest::open_error(const std::string& name, int flags) const {
  const Fd fd = open(name, flags);
  return fd.valid() ? 0 : errno;
}

bool MountTest::visible(const std::string& name) const {
  struct stat attributes {};
  if (stat(mount_.lock(name).c_str(), &attributes) == 0) return true;
  EXPECT_EQ(errno, ENOENT);
  return false;
}

std::string MountTest::value(const std::string& name, const std::string& key) const {
  return picture_value(slurp(mount_.lock(name)), key);
}

std::pair<int, std::string> MountTest::control(const std::string& command,
                                               const std::string& lockspace) const {
  const std::string path = mount_.path() + "/" + lockspace + "/.ctl";
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return {errno, "cannot open .ctl"};
  const int error = write_command(fd.get(), command);
  std::array<char, 4096> answer{};
  const ssize_t n = read(fd.get(), answer.data(), answer.size());
  return {error, std::string(answer.data(), n > 0 ? size_t(n) : 0)};
}

size_t MountTest::waiters() const {
  return std::stoul("0" + picture_value(control("stats").second, "waiters"));
}

bool MountTest::eventually_waiting(size_t count, double seconds) const {
  return eventually([&] { return waiters() == count; }, seconds);
}

}  // namespace lockfs::test
