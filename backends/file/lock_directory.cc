// SPDX-License-Identifier: MIT
#include "backends/file/lock_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "core/lock_name.h"

namespace lockfs {
namespace {

constexpr int kFolder = O_PATH | O_DIRECTORY | O_CLOEXEC;
// How long an open waits for somebody's lease on the file to end.
constexpr int kLeaseTries = 50;
constexpr auto kLeasePause = std::chrono::milliseconds(1);

LockErrc errc_of(int error, bool make) {
  switch (error) {
    case ENOENT: return make ? LockErrc::kUnreachable : LockErrc::kNotFound;
    case EISDIR:
    case ELOOP:
    case ENXIO:  // A socket.
    case ENAMETOOLONG: return LockErrc::kInvalid;
    default: return LockErrc::kUnreachable;
  }
}

bool is_of_writing(int error) {
  return error == ENOSPC || error == EDQUOT || error == EROFS || error == EACCES;
}

// As openat(2), waiting for nobody: not for the other end of a FIFO, not long for a lease.
OpenFile open_at(const OpenFile& folder, const std::string& name, int flags, mode_t mode) {
  for (int i = 0; true; ++i) {
    const int fd = openat(folder.get(), name.c_str(),
                          flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
    if (fd >= 0 || errno != EWOULDBLOCK || i == kLeaseTries) return OpenFile(fd);
    std::this_thread::sleep_for(kLeasePause);
  }
}

// A file that has another name may be anybody's: it is not written. It may be looked at, for it can
// be held since before.
bool is_lock(int fd, bool write) {
  struct stat attr {};
  return fstat(fd, &attr) != 0 || (S_ISREG(attr.st_mode) && !(write && attr.st_nlink > 1));
}

}  // namespace

LockDirectory::LockDirectory(std::string path, std::function<void()> reach_changed)
    : path_(std::move(path)), reach_changed_(std::move(reach_changed)) {
  struct stat attr {};
  if (stat(path_.c_str(), &attr) != 0) return;
  mode_ = attr.st_mode & 0777;
  known_[path_] = {attr.st_dev, attr.st_ino};
}

std::string LockDirectory::file_of(const std::string& lockspace, const std::string& name) {
  return file_name(lockspace) + "/" + file_name(name);
}

// On a full disk each name fails alike: that is said once.
LockErrc LockDirectory::out_of_reach(std::string words, int error) {
  const bool known = !trouble_.empty() && error == trouble_error_;
  if (known && (error != 0 || words == trouble_)) return LockErrc::kUnreachable;
  trouble_ = std::move(words);
  trouble_error_ = error;
  spdlog::warn("file: {}", trouble_);
  reach_changed_();
  return LockErrc::kUnreachable;
}

LockErrc LockDirectory::failed(const std::string& file, int error) {
  return out_of_reach(path_of(file) + ": " + std::strerror(error), error);
}

// That it can be read says nothing of what only a write meets.
void LockDirectory::in_reach(bool written) {
  if (trouble_.empty() || (is_of_writing(trouble_error_) && !written)) return;
  trouble_.clear();
  spdlog::info("file: {} is in reach again", path_);
  reach_changed_();
}

// The answer to an open that ended with `error`.
tl::unexpected<LockErrc> LockDirectory::refuse(const std::string& file, int error, bool make) {
  const LockErrc result = errc_of(error, make);
  if (result == LockErrc::kUnreachable) return tl::make_unexpected(failed(file, error));
  in_reach(false);
  return tl::make_unexpected(result);
}

// Another one in its place: the old one may have holders who do not know yet.
void LockDirectory::meet(const std::string& path, int fd) {
  struct stat attr {};
  if (fstat(fd, &attr) != 0) return;
  const Identity now{attr.st_dev, attr.st_ino};
  const auto [known, first] = known_.try_emplace(path, now);
  if (first || known->second == now) return;
  known->second = now;
  grace_until_ = Clock::now() + kGrace;
}

tl::expected<OpenFile, LockErrc> LockDirectory::folder_of(const std::string& file, bool make) {
  OpenFile top(::open(path_.c_str(), kFolder));
  if (!top) {
    const int error = errno;
    return tl::make_unexpected(out_of_reach(path_ + ": " + std::strerror(error), error));
  }
  const std::string name = file.substr(0, file.find('/'));
  const auto open_it = [&] {
    return OpenFile(openat(top.get(), name.c_str(), kFolder | O_NOFOLLOW));
  };
  OpenFile folder = open_it();
  if (!folder && errno == ENOENT && make) {
    const bool made = mkdirat(top.get(), name.c_str(), mode_) == 0 || errno == EEXIST;
    if (made) folder = open_it();
  }
  const int error = folder ? 0 : errno;
  meet(path_, top.get());
  if (folder) meet(path_of(name), folder.get());
  if (Clock::now() < grace_until_) {
    return tl::make_unexpected(out_of_reach(
        fmt::format("{} or a directory in it was replaced: nothing is granted for {} s, in which "
                    "those who hold locks in the old one are told",
                    path_, kGrace.count())));
  }
  if (folder) return folder;
  if (error != ENOTDIR) return refuse(name, error, make);
  return tl::make_unexpected(
      out_of_reach(path_of(name) + ": it is no directory, or a link to one"));
}

tl::expected<OpenFile, LockErrc> LockDirectory::open(const std::string& file, For what) {
  const bool make = what == For::kMaking;
  const bool write = what != For::kLooking;
  const auto folder = folder_of(file, make);
  if (!folder) return tl::make_unexpected(folder.error());
  const int flags = (write ? O_RDWR : O_RDONLY) | (make ? O_CREAT : 0);
  OpenFile fd = open_at(*folder, file.substr(file.find('/') + 1), flags, mode_ & 0666);
  if (!fd) return refuse(file, errno, make);
  in_reach(false);
  if (is_lock(fd.get(), write)) return fd;
  return tl::make_unexpected(LockErrc::kInvalid);
}

tl::expected<std::vector<std::string>, LockErrc> LockDirectory::files(
    const std::string& lockspace) {
  std::vector<std::string> out;
  const std::string name = file_name(lockspace);
  const auto folder = folder_of(name, false);
  if (!folder && folder.error() == LockErrc::kNotFound) return out;
  if (!folder) return tl::make_unexpected(folder.error());
  OpenFile fd(openat(folder->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fd ? fdopendir(fd.get()) : nullptr, closedir);
  if (listing != nullptr) {
    fd.release();
    while (true) {
      errno = 0;
      const dirent* entry = readdir(listing.get());
      if (entry == nullptr) break;
      const std::string file = entry->d_name;
      if (file != "." && file != "..") out.push_back(fmt::format("{}/{}", name, file));
    }
    if (errno == 0) return out;
  }
  return tl::make_unexpected(failed(name, errno));
}

std::optional<std::string> LockDirectory::gone(const std::string& file, int fd) const {
  struct stat ours {};
  struct stat named {};
  const std::string path = path_of(file);
  if (fstat(fd, &ours) != 0 ? errno == ESTALE : ours.st_nlink == 0) return path + " was deleted";
  if (lstat(path.c_str(), &named) != 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    return missing ? std::optional(path + " was renamed, or a directory of its path")
                   : std::nullopt;
  }
  if (named.st_dev == ours.st_dev && named.st_ino == ours.st_ino) return std::nullopt;
  return path + " is another file now";
}

}  // namespace lockfs
