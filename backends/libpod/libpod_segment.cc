// SPDX-License-Identifier: MIT
// podman's lock manager "shm": robust mutexes in a segment of POSIX shared memory.
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "backends/libpod/libpod_locks.h"
#include "backends/shm/mapping_guard.h"

namespace lockfs::libpod {
namespace {

// As libpod/lock/shm/shm_lock.h has it.
constexpr uint16_t kMagic = 0x87D1;
constexpr uint32_t kLocksInGroup = 32;
struct Group {
  uint32_t bitmap;
  std::array<pthread_mutex_t, kLocksInGroup> locks;
};
struct Segment {
  uint16_t magic;
  uint16_t unused;
  pthread_mutex_t segment_lock;
  uint32_t num_bitmaps;
  uint32_t num_locks;
};
// pthread_mutex_t of the C library: robust and of all processes; the third bit is its own affair.
constexpr int kKind = 0x90;
constexpr int kElision = 0x200;
constexpr uint32_t kThread = 0x3fffffff;  ///< FUTEX_TID_MASK
constexpr uint32_t kOwnerDied = 0x40000000;

// A mutex that is none would make the C library abort.
bool is_mutex(const pthread_mutex_t& mutex) {
  return (__atomic_load_n(&mutex.__data.__kind, __ATOMIC_RELAXED) & ~kElision) == kKind;
}

LockErrc lock_mutex(pthread_mutex_t& mutex, bool now) {
  if (!is_mutex(mutex)) return LockErrc::kUnreachable;
  int result = EAGAIN;
  while (result == EAGAIN)
    result = now ? pthread_mutex_trylock(&mutex) : pthread_mutex_lock(&mutex);
  if (result == EOWNERDEAD) result = pthread_mutex_consistent(&mutex);
  if (result == EBUSY) return LockErrc::kWouldBlock;
  return result == 0 ? LockErrc::kOk : LockErrc::kUnreachable;
}

// One mapping of a segment. podman makes a new one under the same name when it renumbers.
class Mapping {
 public:
  static tl::expected<std::shared_ptr<Mapping>, std::string> open(const std::string& path) {
    const auto fail = [&](const std::string& why) {
      return tl::make_unexpected(fmt::format("libpod: {}: {}", path, why));
    };
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
      return fail(fmt::format("{} (podman makes it with its first command)", std::strerror(errno)));
    }
    struct stat attr {};
    void* base = MAP_FAILED;
    const bool known = fstat(fd, &attr) == 0 && S_ISREG(attr.st_mode) &&
                       attr.st_size >= static_cast<off_t>(sizeof(Segment));
    const auto size = static_cast<size_t>(attr.st_size);
    if (known) base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (base == MAP_FAILED) return fail("it is no lock segment of podman");
    shm::guard_mapping(base, size);
    std::shared_ptr<Mapping> made(new Mapping(base, size, attr));
    const Segment& head = made->head();
    if (head.magic != kMagic) return fail("it is no lock segment of podman (magic)");
    made->groups_ = head.num_bitmaps;
    if (size != sizeof(Segment) + size_t{made->groups_} * sizeof(Group) ||
        head.num_locks != made->groups_ * kLocksInGroup) {
      return fail("its size is not that of its locks");
    }
    return made;
  }
  ~Mapping() {
    shm::forget_mapping(base_);
    munmap(base_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  Segment& head() { return *static_cast<Segment*>(base_); }
  uint32_t count() const { return groups_ * kLocksInGroup; }
  pthread_mutex_t& mutex(uint32_t id) { return group(id).locks.at(id % kLocksInGroup); }
  uint32_t bitmap(uint32_t id) { return __atomic_load_n(&group(id).bitmap, __ATOMIC_ACQUIRE); }
  bool has(uint32_t id) { return id < count() && (bitmap(id) >> (id % kLocksInGroup) & 1U) != 0; }
  void set(uint32_t id, bool allocated) {
    const uint32_t bit = 1U << (id % kLocksInGroup);
    const uint32_t now = bitmap(id);
    __atomic_store_n(&group(id).bitmap, allocated ? now | bit : now & ~bit, __ATOMIC_RELEASE);
  }
  bool is(const struct stat& attr) const { return attr.st_ino == inode_ && attr.st_dev == device_; }
  uid_t owner() const { return owner_; }

 private:
  Mapping(void* base, size_t size, const struct stat& attr)
      : base_(base), size_(size), inode_(attr.st_ino), device_(attr.st_dev), owner_(attr.st_uid) {}
  Group& group(uint32_t id) {
    auto* first = reinterpret_cast<Group*>(static_cast<std::byte*>(base_) + sizeof(Segment));
    return first[id / kLocksInGroup];
  }
  void* base_;
  size_t size_;
  ino_t inode_;
  dev_t device_;
  uid_t owner_;
  uint32_t groups_ = 0;
};

class HeldMutex final : public Locks::Held {
 public:
  HeldMutex(std::shared_ptr<Mapping> mapping, uint32_t id)
      : mapping_(std::move(mapping)), id_(id) {}
  ~HeldMutex() override { pthread_mutex_unlock(&mapping_->mutex(id_)); }
  HeldMutex(const HeldMutex&) = delete;
  HeldMutex& operator=(const HeldMutex&) = delete;

 private:
  std::shared_ptr<Mapping> mapping_;
  uint32_t id_;
};

class SegmentLocks final : public Locks {
 public:
  SegmentLocks(std::string path, std::shared_ptr<Mapping> mapping)
      : path_(std::move(path)), mapping_(std::move(mapping)), owner_(mapping_->owner()) {}

  uint64_t capacity() override { return current()->count(); }
  bool is_allocated(uint32_t id) override { return current()->has(id); }
  std::vector<uint32_t> allocated() override {
    const auto mapping = current();
    std::vector<uint32_t> out;
    for (uint32_t id = 0; id < mapping->count(); ++id) {
      if (mapping->has(id)) out.push_back(id);
    }
    return out;
  }
  std::optional<pid_t> holder(uint32_t id) override {
    const auto mapping = current();
    if (id >= mapping->count()) return std::nullopt;
    const auto word =
        static_cast<uint32_t>(__atomic_load_n(&mapping->mutex(id).__data.__lock, __ATOMIC_ACQUIRE));
    // One that died without letting go: the next that wants it has it.
    if ((word & kThread) == 0 || (word & kOwnerDied) != 0) return std::nullopt;
    return static_cast<pid_t>(word & kThread);
  }
  LockErrc allocate(uint32_t id) override { return change(id, true, LockErrc::kExists); }
  LockErrc free(uint32_t id) override { return change(id, false, LockErrc::kNotFound); }
  tl::expected<std::unique_ptr<Held>, LockErrc> lock(uint32_t id, bool now) override {
    auto mapping = current();
    if (!mapping->has(id)) return tl::make_unexpected(LockErrc::kNotFound);
    const LockErrc result = lock_mutex(mapping->mutex(id), now);
    if (result != LockErrc::kOk) return tl::make_unexpected(result);
    return std::make_unique<HeldMutex>(std::move(mapping), id);
  }
  uid_t owner() const override { return owner_; }

 private:
  // The segment that podman uses now.
  std::shared_ptr<Mapping> current() {
    struct stat attr {};
    const bool there = stat(path_.c_str(), &attr) == 0;
    const std::lock_guard guard(mutex_);
    if (!there || mapping_->is(attr)) return mapping_;
    if (auto renewed = Mapping::open(path_)) mapping_ = std::move(*renewed);
    return mapping_;
  }
  LockErrc change(uint32_t id, bool allocated, LockErrc otherwise) {
    const auto mapping = current();
    if (id >= mapping->count()) return LockErrc::kExhausted;
    pthread_mutex_t& segment_lock = mapping->head().segment_lock;
    if (const LockErrc result = lock_mutex(segment_lock, false); result != LockErrc::kOk) {
      return result;
    }
    const LockErrc result = mapping->has(id) == allocated ? otherwise : LockErrc::kOk;
    if (result == LockErrc::kOk) mapping->set(id, allocated);
    pthread_mutex_unlock(&segment_lock);
    return result;
  }

  std::string path_;
  std::mutex mutex_;
  std::shared_ptr<Mapping> mapping_;  ///< Under mutex_.
  uid_t owner_;
};

}  // namespace

MadeLocks open_segment(const std::string& path) {
  auto mapping = Mapping::open(path);
  if (!mapping) return tl::make_unexpected(mapping.error());
  return std::make_unique<SegmentLocks>(path, std::move(*mapping));
}

}  // namespace lockfs::libpod
