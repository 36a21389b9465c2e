// SPDX-License-Identifier: MIT
#include "backends/dlm/kernel_locks.h"

#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>

namespace lockfs::dlm {
namespace {

// How long after a failure a lockspace is not tried again.
constexpr auto kJoinPause = std::chrono::seconds(2);
// The kernel refuses a cancel or an unlock while a message about the lock is under way.
constexpr auto kRetry = std::chrono::milliseconds(1);

// Whose events libdlm tells on this thread, while it does.
thread_local KernelLocks* current = nullptr;

// libdlm hands it back with each event; a number cannot dangle.
void* argument(LockNo no) {
  return reinterpret_cast<void*>(no);  // NOLINT(performance-no-int-to-ptr)
}

uint32_t dlm_mode(Mode mode) { return static_cast<uint32_t>(mode); }

}  // namespace

static_assert(static_cast<int>(Mode::kEX) == LKM_EXMODE &&
              static_cast<int>(Mode::kCW) == LKM_CWMODE);

std::optional<KernelLockspace::Failure> KernelLocks::join(const std::string& space, mode_t mode) {
  if (spaces_.contains(space)) return std::nullopt;
  auto joined = KernelLockspace::join(space, mode);
  if (!joined) {
    failed_[space] = Clock::now();
    return joined.error();
  }
  failed_.erase(space);
  watch(**joined);
  spaces_[space] = std::move(*joined);
  return std::nullopt;
}

void KernelLocks::watch(const KernelLockspace& space) {
  loop_.watch(space.fd(), [this, fd = space.fd()] {
    dispatch(fd);
    return false;
  });
}

void KernelLocks::dispatch(int fd) {
  if (current != nullptr) return;  // It goes on when what it calls has returned.
  current = this;
  dlm_dispatch(fd);
  current = nullptr;
}

LockErrc KernelLocks::leave(const std::string& space, bool force) {
  failed_.erase(space);
  const auto found = spaces_.find(space);
  if (found == spaces_.end()) return LockErrc::kOk;
  KernelLockspace& left = *found->second;
  loop_.unwatch(left.fd());
  const LockErrc result = left.leave(force);
  std::vector<LockNo> locks;
  for (const auto& [no, lock] : locks_) {
    if (lock->space == &left) locks.push_back(no);
  }
  if (result == LockErrc::kBusy) {  // Open as before; nobody knows of its locks any more.
    watch(left);
    for (const LockNo no : locks) {
      if (!find(no)->released) release(no, std::nullopt, false);
    }
    return result;
  }
  for (const LockNo no : locks) gone(*find(no));  // By the close.
  spaces_.erase(found);
  return result;
}

void KernelLocks::leave_all() {
  while (!spaces_.empty()) {
    const auto first = spaces_.begin();
    if (leave(std::string(first->first), false) == LockErrc::kBusy) {
      loop_.unwatch(first->second->fd());
      spaces_.erase(first);
    }
  }
  locks_.clear();
}

// The lockspace that was joined, if need be now: it may have failed before.
KernelLockspace* KernelLocks::space_of(const std::string& space) {
  const auto found = spaces_.find(space);
  if (found != spaces_.end()) return found->second.get();
  const auto failed = failed_.find(space);
  if (failed == failed_.end() || Clock::now() < failed->second + kJoinPause) return nullptr;
  if (const auto failure = join(space, 0600)) {
    spdlog::warn("dlm: {}", failure->words);
    return nullptr;
  }
  return spaces_.at(space).get();
}

KernelLocks::Lock& KernelLocks::make(LockNo no, KernelLockspace* space) {
  if (unused_.empty()) unused_.push_back(&store_.emplace_back());
  Lock& lock = *unused_.back();
  unused_.pop_back();
  lock = Lock{};
  lock.no = no;
  lock.space = space;
  lock.status.sb_lvbptr = lock.value.data();
  locks_[no] = &lock;
  return lock;
}

KernelLocks::Lock* KernelLocks::find(LockNo no) {
  const auto found = locks_.find(no);
  return found == locks_.end() ? nullptr : found->second;
}

void KernelLocks::forget(Lock& lock) {
  locks_.erase(lock.no);
  unused_.push_back(&lock);
}

void KernelLocks::acquire(LockNo no, const std::string& space, const std::string& resource,
                          Mode mode, bool now, const std::optional<LockValue>& write) {
  Lock* known = find(no);
  if (known == nullptr) {
    KernelLockspace* in = space_of(space);
    if (in == nullptr) return events_.refused(no, LockErrc::kUnreachable);
    known = &make(no, in);
    known->resource = resource;
  }
  known->op = Op::kAcquire;
  known->asked = mode;
  known->now = now;
  known->cancelled = false;
  known->last_write = write;
  start(no);
}

void KernelLocks::start(LockNo no) {
  Lock* found = find(no);
  if (found == nullptr) return;
  Lock& lock = *found;
  if (lock.released || lock.cancelled) return acquire_ended(lock, ECANCEL);
  const uint32_t flags = lock.now ? LKF_NOQUEUE | LKF_NOQUEUEBAST : 0;
  int result = 0;
  if (lock.id != 0) {
    result = convert(lock, lock.asked, flags, lock.last_write);
  } else {
    result =
        dlm_ls_lock(lock.space->handle(), dlm_mode(lock.asked), &lock.status, flags | LKF_VALBLK,
                    lock.resource.data(), static_cast<unsigned>(lock.resource.size()), 0, ended,
                    argument(no), blocks, nullptr);
    lock.id = lock.status.sb_lkid;
  }
  if (result == 0) return dispatch(lock.space->fd());  // It is often granted by now.
  // A message about the lock is under way, as after a cancel that came too late.
  if (errno == EBUSY) {
    loop_.timers.schedule(Clock::now() + kRetry, [this, no] { start(no); });
    return;
  }
  spdlog::warn("dlm: a lock request in {} failed: {}", lock.space->name(), std::strerror(errno));
  acquire_ended(lock, EINVAL);
}

// A conversion from PW or EX stores the value block, also one that did not change: the kernel then
// has it from the survivors when a node dies. Not one that is invalid. Other conversions read it.
int KernelLocks::convert(Lock& lock, Mode mode, uint32_t flags,
                         const std::optional<LockValue>& write) {
  const bool stores = is_exclusive(lock.held) && !(lock.held == Mode::kPW && mode == Mode::kEX);
  if (stores && write) {
    std::memcpy(lock.value.data(), write->bytes.data(), lock.value.size());
    lock.valid = true;
  }
  if (!stores || lock.valid) flags |= LKF_VALBLK;
  lock.status.sb_lkid = lock.id;  // A late event of the one that was here before may be in it.
  return dlm_ls_lock(lock.space->handle(), dlm_mode(mode), &lock.status, flags | LKF_CONVERT,
                     nullptr, 0, 0, ended, argument(lock.no), blocks, nullptr);
}

void KernelLocks::cancel(LockNo no) {
  Lock* lock = find(no);
  if (lock == nullptr || lock->op != Op::kAcquire) return;
  lock->cancelled = true;
  stop(*lock);
}

// A failure says that it has ended and that its end is on its way, or that it waits for start().
void KernelLocks::stop(Lock& lock) {
  dlm_ls_unlock(lock.space->handle(), lock.id, LKF_CANCEL, &lock.status, argument(lock.no));
}

void KernelLocks::release(LockNo no, const std::optional<LockValue>& write, bool tell) {
  Lock* lock = find(no);
  if (lock == nullptr) return tell ? events_.gone(no) : void();
  lock->released = true;
  lock->tell = tell;
  if (write) lock->last_write = write;
  if (lock->op == Op::kAcquire) return stop(*lock);
  if (lock->op == Op::kNone) end(no);
}

// A lock above CR is made NL first: to unlock it would store what happens to lie in libdlm's memory
// as the value block, at once or when the others recover after a death.
void KernelLocks::end(LockNo no) {
  Lock* lock = find(no);
  if (lock == nullptr) return;
  int result = 0;
  if (lock->held > Mode::kCR) {
    lock->op = Op::kToNull;
    result = convert(*lock, Mode::kNL, 0, lock->last_write);
  } else {
    lock->op = Op::kUnlock;
    result = dlm_ls_unlock(lock->space->handle(), lock->id, 0, &lock->status, argument(no));
  }
  if (result == 0) return;
  if (errno == EBUSY) {
    loop_.timers.schedule(Clock::now() + kRetry, [this, no] { end(no); });
    return;
  }
  spdlog::error("dlm: a lock in {} cannot be released: {}", lock->space->name(),
                std::strerror(errno));
  gone(*lock);
}

void KernelLocks::gone(Lock& lock) {
  const LockNo no = lock.no;
  const bool tell = lock.tell;
  forget(lock);
  if (tell) events_.gone(no);
}

void KernelLocks::ended(void* no) {
  Lock* lock = current->find(static_cast<LockNo>(reinterpret_cast<uintptr_t>(no)));
  if (lock == nullptr) return;
  const int status = lock->status.sb_status;
  switch (lock->op) {
    case Op::kAcquire: return current->acquire_ended(*lock, status);
    case Op::kToNull: lock->held = Mode::kNL; return current->end(lock->no);
    case Op::kUnlock: return current->gone(*lock);
    case Op::kNone: return;
  }
}

void KernelLocks::acquire_ended(Lock& lock, int status) {
  const LockNo no = lock.no;
  lock.op = Op::kNone;
  if (status == 0) {
    const bool read =
        !is_exclusive(lock.held) || (lock.held == Mode::kPW && lock.asked == Mode::kEX);
    if (read) lock.valid = (lock.status.sb_flags & DLM_SBF_VALNOTVALID) == 0;
    lock.held = lock.asked;
    lock.exists = true;
    if (lock.released) return end(no);
    LockValue value;
    std::memcpy(value.bytes.data(), lock.value.data(), value.bytes.size());
    value.valid = lock.valid;
    return events_.granted(no, lock.held, value);
  }
  const bool released = lock.released;
  if (released) return lock.exists ? end(no) : gone(lock);
  if (!lock.exists) forget(lock);
  switch (status) {
    case EAGAIN: return events_.refused(no, LockErrc::kWouldBlock);
    case EDEADLK: return events_.refused(no, LockErrc::kDeadlock);
    case ECANCEL: return events_.refused(no, LockErrc::kInterrupted);
    default: return events_.refused(no, LockErrc::kUnreachable);
  }
}

void KernelLocks::blocks(void* no) {
  const Lock* lock = current->find(static_cast<LockNo>(reinterpret_cast<uintptr_t>(no)));
  if (lock != nullptr && !lock->released) current->events_.blocking(lock->no);
}

}  // namespace lockfs::dlm
