// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "backends/dlm/libdlm.h"
#include "backends/dlm/lockspace.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs::dlm {

/// Names one DLM lock of this mount; never used twice, so that late answers are harmless.
enum class LockNo : uint64_t { kNone = 0 };

/// What the DLM says of this mount's locks.
class LockEvents {
 public:
  virtual ~LockEvents() = default;
  /// The acquire is granted; `value` is the lock's value block as of this grant.
  virtual void granted(LockNo lock, Mode mode, const LockValue& value) = 0;
  /// It is not; what the lock had before it still has, and without that it is gone.
  virtual void refused(LockNo lock, LockErrc why) = 0;
  /// Somebody waits for what this lock holds.
  virtual void blocking(LockNo lock) = 0;
  /// It was released, and nobody is kept from anything by it.
  virtual void gone(LockNo lock) = 0;
};

/// The DLM locks of this mount, by libdlm. Its calls may sleep while the cluster recovers, so all
/// of this lives on one thread of its own, on that thread's loop; the events come on it too.
class KernelLocks {
 public:
  KernelLocks(EventLoop& loop, LockEvents& events) : loop_(loop), events_(events) {}
  /// After leave_all() only.
  ~KernelLocks() = default;
  KernelLocks(const KernelLocks&) = delete;
  KernelLocks& operator=(const KernelLocks&) = delete;

  /// Joins a lockspace by its DLM name; a second time nothing. A failure says why in words.
  std::optional<KernelLockspace::Failure> join(const std::string& space, mode_t mode);
  LockErrc leave(const std::string& space, bool force);
  /// Leaves all, at the end of the mount.
  void leave_all();

  /// Asks for `mode` on a resource of at most 64 bytes: a new lock, or the conversion of one that
  /// has nothing under way. With `now` it is refused with kWouldBlock rather than queued. `write`
  /// is a new value block: stored by a conversion from PW or EX to a weaker mode.
  void acquire(LockNo no, const std::string& space, const std::string& resource, Mode mode,
               bool now, const std::optional<LockValue>& write);
  /// Ends what is under way: granted() or refused(kInterrupted) comes still.
  void cancel(LockNo no);
  /// Ends the lock, whatever is under way; of its events only gone() still comes, to `tell`.
  void release(LockNo no, const std::optional<LockValue>& write, bool tell);

 private:
  enum class Op { kNone, kAcquire, kToNull, kUnlock };
  struct Lock {
    LockNo no = LockNo::kNone;
    KernelLockspace* space = nullptr;
    dlm_lksb status{};  ///< Written by libdlm, trusted only when an operation has ended.
    std::array<char, DLM_LVB_LEN> value{};
    bool valid = true;
    uint32_t id = 0;      ///< The kernel's, 0: none yet.
    bool exists = false;  ///< It was granted once.
    Mode held = Mode::kNL;
    std::string resource;
    Mode asked = Mode::kNL;
    bool now = false;
    Op op = Op::kNone;
    bool released = false;
    bool tell = false;  ///< When it is gone.
    bool cancelled = false;
    std::optional<LockValue> last_write;  ///< To store with what is under way.
  };

  static void ended(void* no);
  static void blocks(void* no);
  KernelLockspace* space_of(const std::string& space);
  Lock& make(LockNo no, KernelLockspace* space);
  Lock* find(LockNo no);
  void forget(Lock& lock);
  void gone(Lock& lock);
  void dispatch(int fd);
  void watch(const KernelLockspace& space);
  void start(LockNo no);
  void acquire_ended(Lock& lock, int status);
  void stop(Lock& lock);
  void end(LockNo no);
  int convert(Lock& lock, Mode mode, uint32_t flags, const std::optional<LockValue>& write);

  EventLoop& loop_;
  LockEvents& events_;
  std::map<std::string, std::unique_ptr<KernelLockspace>> spaces_;
  std::map<std::string, TimePoint> failed_;  ///< When joining it was last tried.
  std::deque<Lock> store_;                   ///< Never shrinks: libdlm writes to what has ended.
  std::vector<Lock*> unused_;
  std::unordered_map<LockNo, Lock*> locks_;
};

}  // namespace lockfs::dlm
