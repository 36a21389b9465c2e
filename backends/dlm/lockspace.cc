// SPDX-License-Identifier: MIT
#include "backends/dlm/lockspace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "backends/byte_lock.h"
#include "backends/dlm/libdlm.h"

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

LockErrc KernelLockspace::leave(bool force) {
  const Turn turn(marker_);
  set_bytes(marker_, ByteLock::kNone, kMemberByte, kMemberByte);
  if (bytes_are_taken(marker_, ByteLock::kWrite, kMemberByte, kMemberByte)) {
    dlm_close_lockspace(handle_);  // Other mounts have it.
    handle_ = nullptr;
    return LockErrc::kOk;
  }
  errno = 0;  // It returns 0 though the kernel refused.
  const int result = dlm_release_lockspace(name_.c_str(), handle_, force ? 1 : 0);
  const bool busy = errno == EBUSY;
  handle_ = busy ? dlm_open_lockspace(name_.c_str()) : nullptr;
  if (handle_ != nullptr) {
    set_bytes(marker_, ByteLock::kRead, kMemberByte, kMemberByte);
    return LockErrc::kBusy;
  }
  if (result == 0 && !busy) [[maybe_unused]]
    const int cut = ftruncate(marker_, 0);
  return result == 0 ? LockErrc::kOk : LockErrc::kUnreachable;
}

}  // namespace lockfs::dlm
