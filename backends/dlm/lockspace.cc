// SPDX-License-Identifier: MIT
#include "backends/dlm/lockspace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "backends/byte_lock.h"
#include "backends/dlm/libdlm.h"
#include "backends/worker_thread.h"

namespace lockfs::dlm {
namespace {

constexpr const char* kFolder = "/run/lockfs";
// Read-locked by each mount that has the lockspace.
constexpr int64_t kMemberByte = 0;

bool usable(std::string_view name) {
  const auto fits = [](unsigned char c) { return c > ' ' && c < 0x7f && c != '/' && c != '!'; };
  return !name.empty() && name.size() < DLM_LOCKSPACE_LEN && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), fits);
}

int open_marker(const std::string& name) {
  mkdir(kFolder, 0700);
  return open(fmt::format("{}/dlm-{}", kFolder, name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

// One join or leave of a host at a time.
class Turn {
 public:
  explicit Turn(int marker) : marker_(marker) {
    while (flock(marker_, LOCK_EX) != 0 && errno == EINTR) continue;
  }
  ~Turn() { flock(marker_, LOCK_UN); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  int marker_;
};

bool we_are_counted(int marker) {
  struct stat attr {};
  return fstat(marker, &attr) == 0 && attr.st_size != 0;
}

// A process of this host, other than ours, that has the lockspace's device open; 0: none.
pid_t other_user(int fd) {
  struct stat device {};
  if (fstat(fd, &device) != 0) return 0;
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator("/proc", error)) {
    const pid_t pid = std::atoi(process.path().filename().c_str());
    if (pid == 0 || pid == getpid()) continue;
    std::error_code gone;
    std::filesystem::directory_iterator open(process.path() / "fd", gone);
    for (; !gone && open != std::filesystem::directory_iterator(); open.increment(gone)) {
      struct stat attr {};
      if (stat(open->path().c_str(), &attr) == 0 && S_ISCHR(attr.st_mode) &&
          attr.st_rdev == device.st_rdev) {
        return pid;
      }
    }
  }
  return 0;
}

std::string why_not(const std::string& name) {
  if (errno == ENOTCONN) return "dlm_controld is not running: systemctl start dlm";
  if (errno == EPERM || errno == EACCES) return "that needs CAP_SYS_ADMIN: start it as root";
  return fmt::format("the kernel cannot join {}: {}", name, std::strerror(errno));
}

}  // namespace

tl::expected<std::unique_ptr<KernelLockspace>, KernelLockspace::Failure> KernelLockspace::join(
    std::string_view name, mode_t mode) {
  const auto fail = [&](LockErrc why, std::string words) {
    return tl::make_unexpected(Failure{why, fmt::format("lockspace {}: {}", name, words)});
  };
  if (!usable(name)) {
    return fail(LockErrc::kInvalid,
                "a DLM lockspace has at most 63 printable ASCII characters, "
                "no blank, '/' or '!', and does not begin with a dot");
  }
  const int marker = open_marker(std::string(name));
  if (marker < 0) {
    return fail(LockErrc::kUnreachable,
                fmt::format("cannot keep a file in {}: {}", kFolder, std::strerror(errno)));
  }
  std::unique_ptr<KernelLockspace> space(new KernelLockspace(std::string(name), marker));
  const Turn turn(marker);
  if (we_are_counted(marker)) space->handle_ = dlm_open_lockspace(space->name_.c_str());
  if (space->handle_ == nullptr) {
    space->handle_ = dlm_create_lockspace(space->name_.c_str(), mode & 0666);
    if (space->handle_ == nullptr) return fail(LockErrc::kUnreachable, why_not(space->name_));
    [[maybe_unused]] const ssize_t written = pwrite(marker, "joined\n", 7, 0);
  }
  set_bytes(marker, ByteLock::kRead, kMemberByte, kMemberByte);
  return space;
}

KernelLockspace::~KernelLockspace() {
  if (handle_ != nullptr) dlm_close_lockspace(handle_);
  if (marker_ >= 0) close(marker_);
}

int KernelLockspace::fd() const { return dlm_ls_get_fd(handle_); }

// The kernel would wait for the others to close it; we look before. Of no use are its own checks:
// it counts the locks of other nodes that it is master of, too.
LockErrc KernelLockspace::leave(bool force) {
  const Turn turn(marker_);
  set_bytes(marker_, ByteLock::kNone, kMemberByte, kMemberByte);
  if (bytes_are_taken(marker_, ByteLock::kWrite, kMemberByte, kMemberByte)) {
    dlm_close_lockspace(handle_);  // Other mounts have it.
    handle_ = nullptr;
    return LockErrc::kOk;
  }
  const pid_t other = other_user(fd());
  if (other != 0 && !force) {
    spdlog::warn("dlm: the host stays in {}: pid {} has it open", name_, other);
    set_bytes(marker_, ByteLock::kRead, kMemberByte, kMemberByte);
    return LockErrc::kBusy;
  }
  void* const handle = std::exchange(handle_, nullptr);
  const auto release = [name = name_, handle] {
    return dlm_release_lockspace(name.c_str(), handle, 1);
  };
  [[maybe_unused]] const int cut = ftruncate(marker_, 0);
  if (other == 0) return release() == 0 ? LockErrc::kOk : LockErrc::kUnreachable;
  if (detached_thread("leave " + name_, release)) {
    spdlog::warn("dlm: the host has left {} once pid {} has closed it", name_, other);
  } else {
    dlm_close_lockspace(handle);
  }
  return LockErrc::kOk;
}

}  // namespace lockfs::dlm
