// SPDX-License-Identifier: MIT
#include "ctl/acquire.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "ctl/failure.h"
#include "ctl/open_locks.h"
#include "ctl/picture.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// The mount takes no longer ones.
constexpr double kMaxWait = 10 * 365 * 86400.0;

// Says on a terminal for whom we wait, if we still do after a second. A process of its own, not a
// thread: the mount tells deadlocks among processes with a single thread only.
class WaitNotice {
 public:
  WaitNotice(const MountPoint& mount, const LockPath& lock) {
    if (isatty(STDERR_FILENO) == 0) return;
    const pid_t parent = getpid();
    child_ = fork();
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) say(mount, lock);
    _exit(0);
  }
  ~WaitNotice() {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  WaitNotice(const WaitNotice&) = delete;
  WaitNotice& operator=(const WaitNotice&) = delete;

 private:
  static void say(const MountPoint& mount, const LockPath& lock) {
    sleep(1);
    try {
      const Picture picture = read_lock(mount, lock);
      std::string who = "held " + holders_in_words(picture);
      if (picture.holders.empty()) {
        who = "which nobody holds here now";
      } else if (!picture.holders.front().since.empty()) {
        who += " since " + time_in_words(picture.holders.front().since);
      }
      std::cerr << fmt::format("lockctl: waiting for {}, {}; Ctrl-C gives up\n", lock.shown(), who);
    } catch (const std::exception&) {
      return;  // Who waits will say what is wrong.
    }
  }

  pid_t child_ = -1;
};

// What the mount says to this open file alone; nothing, if that cannot be read.
std::string this_error(int fd) {
  try {
    return yaml_to_json(read_file(fd).value_or("")).at("this").at("error").get<std::string>();
  } catch (const std::exception&) {
    return {};
  }
}

// Who is in the way; for a failure that somebody else causes.
std::string in_the_way(const MountPoint& mount, const LockPath& lock) {
  try {
    const Picture picture = read_lock(mount, lock);
    if (picture.holders.empty()) return "nobody holds it now: try again";
    return fmt::format("it is held {}; `lockctl show {}` tells more", holders_in_words(picture),
                       lock.shown());
  } catch (const std::exception& error) {
    return error.what();
  }
}

[[noreturn]] void fail(const MountPoint& mount, const LockPath& lock, int fd, int error) {
  fail_if_ended(mount, lock.shown(), error);
  const std::string name = lock.shown();
  switch (error) {
    case EAGAIN:
      throw Failure(ExitCode::kNo,
                    fmt::format("{} is not free: {}", name, in_the_way(mount, lock)));
    case ETIMEDOUT:
      throw Failure(ExitCode::kNo,
                    fmt::format("{} was not free in time: {}", name, in_the_way(mount, lock)));
    case EDEADLK:
      throw Failure(ExitCode::kTryAgain,
                    fmt::format("{}: a deadlock, who holds it waits for what you hold; {}", name,
                                in_the_way(mount, lock)));
    default: break;
  }
  const std::string why = this_error(fd);
  throw Failure(exit_code_of(error),
                fmt::format("{}: {}", name, why.empty() ? std::strerror(error) : printable(why)));
}

[[noreturn]] void fail_as_own(const LockPath& lock, const std::string& mode) {
  throw Failure(ExitCode::kTryAgain,
                fmt::format("{}: a deadlock: it is held {} by the `lockctl run` that this one runs "
                            "under, until both have ended; take it in one of them only",
                            lock.shown(), mode));
}

[[noreturn]] void fail_to_open(const MountPoint& mount, const LockPath& lock, int error) {
  fail_if_ended(mount, lock.shown(), error);
  if (error == ENOENT || error == ENOTDIR) need_lockspace(mount, lock.shown(), lock.lockspace);
  std::string next;
  if (error == EACCES) {
    next = "; the lockspace's mode says who may lock in it: ls -ld " +
           printable(mount.path + "/" + lock.lockspace);
  }
  throw Failure(exit_code_of(error),
                fmt::format("{}: {}{}", lock.shown(), std::strerror(error), next));
}

OpenFile open_lock(const MountPoint& mount, const LockPath& lock) {
  int fd = -1;
  do {
    fd = open(lock.path(mount).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) fail_to_open(mount, lock, errno);
  return OpenFile(fd);
}

// NL and SLOT share with all that may stand in front of us, CR with all but EX: who is in our way
// then need not wait for it.
bool is_in_the_way(const std::string& inherited, const std::string& wanted) {
  if (inherited == "CR") return wanted == "EX";
  return inherited != "NL" && inherited != "SLOT";
}

// What LOCKFS_FD holds of this lock; empty if it is another file, not open, or not in the way. It
// stays held for as long as we live, as we have it open: to wait for it is to wait for ourselves.
std::string inherited_mode(const OpenFile& file, const std::string& wanted) {
  const char* number = std::getenv("LOCKFS_FD");
  const int fd = number != nullptr ? std::atoi(number) : -1;
  struct stat lock {};
  struct stat inherited {};
  const bool same = fd > 0 && fd != file.get() && fstat(file.get(), &lock) == 0 &&
                    fstat(fd, &inherited) == 0 && lock.st_dev == inherited.st_dev &&
                    lock.st_ino == inherited.st_ino;
  const std::string mode = same ? held_mode("/proc/self/fd/" + std::to_string(fd)) : "";
  return is_in_the_way(mode, wanted) ? mode : "";
}

}  // namespace

std::string mode_string(const AcquireOptions& options, std::optional<milliseconds> left) {
  std::string out = options.mode;
  if (options.size != 0) out += fmt::format(" size={}", options.size);
  if (options.nonblock || (left && left->count() <= 0)) {
    out += " try";
  } else if (left) {
    out += fmt::format(" timeout={}ms", left->count());
  }
  if (!options.ttl.empty()) out += " " + in_quotes("ttl=" + options.ttl);
  if (!options.note.empty()) out += " " + in_quotes("note=" + options.note);
  if (!options.signal_when_lost.empty()) out += " onlost=" + options.signal_when_lost;
  return out;
}

OpenFile acquire(const MountPoint& mount, const LockPath& lock, const AcquireOptions& options) {
  const auto start = Clock::now();
  const bool waits = !options.nonblock && options.wait.value_or(1) > 0;
  std::optional<WaitNotice> notice;
  if (waits) notice.emplace(mount, lock);  // Before the file is open: it must not have it.
  OpenFile file = open_lock(mount, lock);
  const std::string inherited = waits ? inherited_mode(file, options.mode) : "";
  for (;;) {
    std::optional<milliseconds> left;
    if (options.wait) {
      const double seconds = std::min(*options.wait, kMaxWait);
      left = milliseconds(std::llround(std::ceil(seconds * 1000))) -
             std::chrono::duration_cast<milliseconds>(Clock::now() - start);
    }
    if (!inherited.empty()) left = milliseconds(0);
    const std::string command = mode_string(options, left);
    const ssize_t n = write(file.get(), command.data(), command.size());
    if (n == static_cast<ssize_t>(command.size())) return file;
    // Stopped and continued: the mount has kept our place for a second.
    if (n < 0 && errno == EINTR) continue;
    const int error = n < 0 ? errno : EIO;
    notice.reset();
    if (!inherited.empty() && error == EAGAIN) fail_as_own(lock, inherited);
    fail(mount, lock, file.get(), error);
  }
}

std::string token_of(const OpenFile& held) {
  std::array<char, 64> value{};
  const ssize_t n = fgetxattr(held.get(), "user.lockfs.token", value.data(), value.size());
  return {value.data(), n > 0 ? static_cast<size_t>(n) : 0};
}

std::string why_lost(const OpenFile& held) {
  constexpr std::string_view kLead = "the lock was lost: ";
  std::string why = this_error(held.get());
  if (why.starts_with(kLead)) why.erase(0, kLead.size());
  return why.empty() ? "the mount does not answer any more" : printable(why);
}

}  // namespace lockfs::ctl
