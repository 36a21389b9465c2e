// SPDX-License-Identifier: MIT
#include "backends/shm/shared_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>
#include <thread>
#include <utility>

#include "backends/byte_lock.h"
#include "backends/shm/mapping_guard.h"

namespace lockfs::shm {
namespace {

// Bytes of the file that are locked and never written.
constexpr int64_t kChangeByte = int64_t{1} << 40;
constexpr int64_t kNodeBytes = kChangeByte + 1;
// A change takes a microsecond: so many tries are worth less than going to sleep.
constexpr int kEnterTries = 40;

bool try_byte(int fd, int64_t byte) {
  return set_bytes(fd, ByteLock::kWrite, byte, byte) == LockErrc::kOk;
}

std::string because(const std::string& what) {
  return fmt::format("{}: {}", what, std::strerror(errno));
}

// A whole segment or none: it gets its name when it is ready.
tl::expected<int, std::string> make(const std::string& path, uint32_t locks) {
  const std::string folder = path.substr(0, path.rfind('/'));
  const int fd = ::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (fd < 0) return tl::make_unexpected(because("cannot make a file in " + folder));
  const size_t size = size_for(locks);
  void* base = MAP_FAILED;
  // Every page now: a full filesystem would kill us later.
  if (const int full = posix_fallocate(fd, 0, static_cast<off_t>(size)); full != 0) {
    errno = full;
  } else {
    base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (base == MAP_FAILED) {
    const std::string words = because(fmt::format("cannot have {} bytes in {}", size, folder));
    close(fd);
    return tl::make_unexpected(words);
  }
  LockSegment::format(base, locks);
  munmap(base, size);
  const std::string own = fmt::format("/proc/self/fd/{}", fd);
  if (linkat(AT_FDCWD, own.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return fd;
  const int why = errno;
  close(fd);
  errno = why;
  if (why == EEXIST) return -1;  // Another mount was faster.
  return tl::make_unexpected(because("cannot make it"));
}

// What speaks against an open file as a segment, before it is mapped.
std::optional<std::string> refusal(int fd, std::optional<uint32_t> locks, off_t& size) {
  struct stat attr {};
  if (fstat(fd, &attr) != 0) return because("cannot look at it");
  size = attr.st_size;
  if (!S_ISREG(attr.st_mode)) return "it is no file";
  if (attr.st_uid != geteuid()) {
    return fmt::format("it belongs to uid {}, who could change it; this mount is of uid {}",
                       attr.st_uid, geteuid());
  }
  Header header;
  static_assert(std::is_trivially_copyable_v<decltype(Header::magic)>);
  if (pread(fd, static_cast<void*>(&header), sizeof header, 0) != sizeof header) {
    return "it is no segment of lockfs: too short";
  }
  if (auto wrong = LockSegment::check_head(header, static_cast<uint64_t>(size))) return wrong;
  if (locks && *locks != header.lock_count) {
    return fmt::format("it was made for {} locks, not {}", header.lock_count, *locks);
  }
  return std::nullopt;
}

// An inotify descriptor until it is somebody's.
class Watch {
 public:
  Watch() : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}
  ~Watch() {
    if (fd_ >= 0) close(fd_);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  int take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace

tl::expected<std::unique_ptr<SharedSegment>, std::string> SharedSegment::open(
    const std::string& path, std::optional<uint32_t> locks, std::chrono::milliseconds patience) {
  const auto fail = [&](const std::string& words) {
    return tl::make_unexpected(fmt::format("shm: {}: {}", path, words));
  };
  // Before the segment: a dying process gives its files back from the highest to the lowest, and to
  // end a watch may take the kernel a second, for which our byte locks must not wait.
  Watch watch;
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
  int fd = ::open(path.c_str(), kFlags);
  if (fd < 0 && errno == ENOENT) {
    const auto made = make(path, locks.value_or(kDefaultLocks));
    if (!made) return fail(made.error());
    fd = *made >= 0 ? *made : ::open(path.c_str(), kFlags);
  }
  if (fd < 0) return fail(because("cannot be opened"));
  off_t size = 0;
  if (const auto wrong = refusal(fd, locks, size)) {
    close(fd);
    return fail(*wrong + ". If no mount uses it, remove it");
  }
  const auto bytes = static_cast<size_t>(size);
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    const std::string words = because("cannot be mapped");
    close(fd);
    return fail(words);
  }
  guard_mapping(base, bytes);
  std::unique_ptr<SharedSegment> made(new SharedSegment(path, fd, base, bytes, watch.take()));
  if (const auto wrong = made->join(patience)) return fail(*wrong);
  return made;
}

SharedSegment::SharedSegment(std::string path, int fd, void* base, size_t size, int watch)
    : path_(std::move(path)),
      fd_(fd),
      base_(base),
      size_(size),
      inotify_(watch),
      locks_(std::make_unique<LockSegment>(base)) {}

// What we hold is ended by the others, who see the file closed: it is the way of a death, and so
// the one way.
SharedSegment::~SharedSegment() {
  if (inotify_ >= 0) close(inotify_);
  forget_mapping(base_);
  munmap(base_, size_);
  close(fd_);
}

std::optional<std::string> SharedSegment::join(std::chrono::milliseconds patience) {
  const std::string own = fmt::format("/proc/self/fd/{}", fd_);
  constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVE_SELF;
  if (inotify_ < 0 || inotify_add_watch(inotify_, own.c_str(), kEvents) < 0) {
    return because("cannot watch it (inotify; see fs.inotify.max_user_instances)");
  }
  self_ = kNodes - 1;  // In whose name we are within, until we have a place.
  const auto end = std::chrono::steady_clock::now() + patience;
  try {
    while (!enter()) {
      if (std::chrono::steady_clock::now() > end) return "it is kept by " + who_is_within();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    bury_dead();
    uint32_t place = 0;
    while (place < kNodes &&
           (locks_->node(place).used.load() != 0 || !try_byte(fd_, kNodeBytes + int64_t{place}))) {
      ++place;
    }
    if (place < kNodes) {
      self_ = place;
      joined_ = true;
      Node& node = locks_->node(self_);
      node.host = {};
      gethostname(node.host.data(), node.host.size() - 1);
      node.pid.store(static_cast<uint32_t>(getpid()));
      node.used.store(1);
    }
    leave();
    if (place < kNodes) return std::nullopt;
    return fmt::format("{} mounts use it already, more cannot", kNodes);
  } catch (const DamagedSegment& damage) {
    return fmt::format("it is damaged ({}); unmount all that use it, and remove it", damage.what());
  }
}

bool SharedSegment::enter() {
  for (int i = 0; i < kEnterTries; ++i) {
    if (try_byte(fd_, kChangeByte)) {
      entered();
      return true;
    }
  }
  return false;
}

LockErrc SharedSegment::wait_to_enter() { return wait_for_byte(fd_, kChangeByte); }

void SharedSegment::entered() {
  wake_ = 0;
  try {
    if (!locks_->begin(self_)) locks_->repair(wake_);
  } catch (const DamagedSegment&) {
    set_bytes(fd_, ByteLock::kNone, kChangeByte, kChangeByte);
    throw;
  }
}

void SharedSegment::abandon() {
  set_bytes(fd_, ByteLock::kNone, kChangeByte, kChangeByte);
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (is_used(i)) ring(i);
  }
}

void SharedSegment::leave() {
  locks_->end();
  set_bytes(fd_, ByteLock::kNone, kChangeByte, kChangeByte);
  for (NodeSet left = std::exchange(wake_, 0); left != 0; left &= left - 1) {
    ring(static_cast<uint32_t>(std::countr_zero(left)));
  }
}

bool SharedSegment::is_alive(uint32_t node) const {
  const int64_t byte = kNodeBytes + int64_t{node};
  return (joined_ && node == self_) || bytes_are_taken(fd_, ByteLock::kWrite, byte, byte);
}

// The kernel says who is alive; an overwritten word here only costs a look.
bool SharedSegment::is_used(uint32_t node) const {
  try {
    return locks_->node(node).used.load() != 0;
  } catch (const DamagedSegment&) {
    return true;
  }
}

bool SharedSegment::any_dead() {
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (is_used(i) && !is_alive(i)) return true;
  }
  return false;
}

void SharedSegment::bury_dead() {
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (!is_used(i) || is_alive(i)) continue;
    locks_->release_all(i, wake_);
    locks_->node(i).used.store(0);
  }
}

std::string SharedSegment::who_is_within() {
  try {
    if (const auto node = locks_->within()) {
      const Node& it = locks_->node(*node);
      return fmt::format("the mount with pid {} on {}, stopped in the midst of a change",
                         it.pid.load(), it.host_name());
    }
  } catch (const DamagedSegment&) {  // Then its name is not known.
  }
  return "another mount";
}

uint32_t SharedSegment::bell() { return locks_->node(self_).bell.load(std::memory_order_acquire); }

uint32_t SharedSegment::listen(uint32_t heard) {
  std::atomic<uint32_t>& bell = locks_->node(self_).bell;
  while (bell.load(std::memory_order_acquire) == heard) {
    syscall(SYS_futex, &bell, FUTEX_WAIT, heard, nullptr, nullptr, 0);
  }
  return bell.load(std::memory_order_acquire);
}

void SharedSegment::ring(uint32_t node) {
  std::atomic<uint32_t>& bell = locks_->node(node).bell;
  bell.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void SharedSegment::take_events() {
  alignas(inotify_event) std::array<char, 4096> buffer{};
  while (read(inotify_, buffer.data(), buffer.size()) > 0) {
  }
}

std::optional<std::string> SharedSegment::gone() const {
  struct stat ours {};
  struct stat named {};
  if (fstat(fd_, &ours) != 0) return std::nullopt;
  if (ours.st_size != static_cast<off_t>(size_)) return "it was truncated";
  // The kernel tells of a deletion before its name is gone.
  if (ours.st_nlink == 0) return "it was deleted";
  if (stat(path_.c_str(), &named) != 0) return "it was renamed";
  if (named.st_dev == ours.st_dev && named.st_ino == ours.st_ino) return std::nullopt;
  return "another one has its name now";
}

}  // namespace lockfs::shm
