// SPDX-License-Identifier: MIT
// podman's lock manager "file": a file for each lock, whose whole is locked by fcntl.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "backends/libpod/libpod_locks.h"

namespace lockfs::libpod {
namespace {

// Files that are freed and made anew under our hands as often as this are somebody's mistake.
constexpr int kOpenTries = 3;

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

class HeldFile final : public Locks::Held {
 public:
  explicit HeldFile(int fd) : fd_(fd) {}
  ~HeldFile() override { close(fd_); }
  HeldFile(const HeldFile&) = delete;
  HeldFile& operator=(const HeldFile&) = delete;

 private:
  int fd_;
};

class DirectoryLocks final : public Locks {
 public:
  DirectoryLocks(std::string path, uid_t owner) : path_(std::move(path)), owner_(owner) {}

  uint64_t capacity() override { return uint64_t{1} << 32U; }
  bool is_allocated(uint32_t id) override { return access(file(id).c_str(), F_OK) == 0; }
  std::vector<uint32_t> allocated() override {
    std::vector<uint32_t> out;
    DIR* folder = opendir(path_.c_str());
    if (folder == nullptr) return out;
    while (const dirent* entry = readdir(folder)) {
      const std::string_view name = entry->d_name;
      uint32_t id = 0;
      const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), id);
      if (wrong == std::errc() && end == name.data() + name.size()) out.push_back(id);
    }
    closedir(folder);
    return out;
  }
  // podman's lock is its process's, ours our description's: the kernel shows the one to the other.
  std::optional<pid_t> holder(uint32_t id) override {
    // Not for the other end of a FIFO: whose podman it is may have put one there.
    const int fd = open(file(id).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return std::nullopt;
    struct flock lock = whole_file();
    const bool asked = fcntl(fd, F_OFD_GETLK, &lock) == 0;
    close(fd);
    if (!asked || lock.l_type == F_UNLCK) return std::nullopt;
    return std::max<pid_t>(lock.l_pid, 0);
  }
  LockErrc allocate(uint32_t id) override {
    const int fd = open(file(id).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return errno == EEXIST ? LockErrc::kExists : LockErrc::kUnreachable;
    close(fd);
    return LockErrc::kOk;
  }
  LockErrc free(uint32_t id) override {
    if (unlink(file(id).c_str()) == 0) return LockErrc::kOk;
    return errno == ENOENT ? LockErrc::kNotFound : LockErrc::kUnreachable;
  }
  tl::expected<std::unique_ptr<Held>, LockErrc> lock(uint32_t id, bool now) override {
    for (int i = 0; i < kOpenTries; ++i) {
      const int fd = open(file(id).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
      if (fd < 0) {
        return tl::make_unexpected(errno == ENOENT ? LockErrc::kNotFound : LockErrc::kUnreachable);
      }
      struct flock lock = whole_file();
      int result = -1;
      do {
        result = fcntl(fd, now ? F_OFD_SETLK : F_OFD_SETLKW, &lock);
      } while (result != 0 && errno == EINTR);
      const int why = errno;
      struct stat attr {};
      // A file that was freed meanwhile excludes nobody who comes later.
      const bool named = fstat(fd, &attr) == 0 && attr.st_nlink > 0;
      if (result == 0 && named) return std::make_unique<HeldFile>(fd);
      close(fd);
      if (result != 0) {
        const bool taken = why == EAGAIN || why == EACCES;
        return tl::make_unexpected(taken ? LockErrc::kWouldBlock : LockErrc::kUnreachable);
      }
    }
    return tl::make_unexpected(LockErrc::kUnreachable);
  }
  uid_t owner() const override { return owner_; }

 private:
  std::string file(uint32_t id) const { return fmt::format("{}/{}", path_, id); }
  std::string path_;
  uid_t owner_;
};

}  // namespace

MadeLocks open_directory(const std::string& path) {
  struct stat attr {};
  if (stat(path.c_str(), &attr) != 0) {
    return tl::make_unexpected(fmt::format("libpod: {}: {}", path, std::strerror(errno)));
  }
  if (!S_ISDIR(attr.st_mode)) {
    return tl::make_unexpected(fmt::format("libpod: {}: it is no directory", path));
  }
  return std::make_unique<DirectoryLocks>(path, attr.st_uid);
}

}  // namespace lockfs::libpod
