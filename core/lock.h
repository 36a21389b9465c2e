// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/lock_backend.h"
#include "core/space_stats.h"
#include "core/timer_queue.h"
#include "core/wait_queue.h"

namespace lockfs {

struct Lock;
struct Lockspace;
struct Owner;
enum class OwnerId : uint64_t { kNone = 0 };

/// Who asks, as the kernel tells it: `pid` is the thread's id on this host, 0 when out of sight.
struct Client {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

/// One request for a lock.
struct Request {
  Share want;
  bool now = false;         ///< Fail with kWouldBlock rather than wait.
  bool drop_first = false;  ///< flock(2)'s conversion: what is held is given up before waiting.
  std::optional<Duration> timeout;  ///< Wait at most that long.
  std::optional<Duration> ttl;      ///< Lose the lock that long after the grant.
  std::optional<Duration> linger;   ///< Keep the lock that long after the last close.
  std::string note;                 ///< Shown to whoever reads the lock.
};

/// A request that waits in its lock's queue.
struct Wait {
  Request request;
  Client client;
  pid_t process = 0;      ///< client.pid's process, 0 when unknown.
  uint64_t sequence = 0;  ///< Its place: smaller goes first.
  TimePoint since;
  std::optional<TimePoint> deadline;
  TimerId timer = TimerId::kNone;
  bool converting = false;     ///< Holds something above NL meanwhile.
  Owner* same_prev = nullptr;  ///< In the graph's list of those of this process that wait.
  Owner* same_next = nullptr;
};

/// What few owners have.
struct OwnerExtras {
  std::string note;
  std::optional<Duration> ttl;
  std::optional<TimePoint> expires;
  TimerId timer = TimerId::kNone;  ///< For ttl while open, for linger after the close.
  std::optional<Duration> linger;
  std::string key;  ///< 128 random bits in hex, for `resume`; empty without linger.
};

/// One that can hold a lock: an open file description, or a process for POSIX locks (the DLM's
/// lkb). It holds at most one share of one lock, and has at most one request waiting.
struct Owner {
  OwnerId id = OwnerId::kNone;
  uint64_t tag = 0;  ///< The opener's own name for it.
  Lock* lock = nullptr;
  Client client;         ///< Who made the last request; before the first, who opened it.
  pid_t opener = 0;      ///< The thread that opened it.
  pid_t process = 0;     ///< client.pid's process, once somebody had reason to look it up.
  bool holding = false;  ///< Holds `held`, which may be NL.
  bool closed = false;   ///< Its descriptor is gone, it lingers.
  bool lost = false;     ///< Its lock was taken from it; says kLost until release or close.
  Share held;
  Share before;  ///< What it held before the last grant, for a grant that cannot be delivered.
  uint64_t token = 0;
  TimePoint since;  ///< Of the last grant.
  std::unique_ptr<Wait> wait;
  std::unique_ptr<OwnerExtras> extras;
  uint64_t place_kept = 0;  ///< The sequence of an interrupted wait, good until place_until.
  TimePoint place_until;
  Owner* prev = nullptr;  ///< In the lock's list of those that hold.
  Owner* next = nullptr;
};

struct LockStats {
  using Longest = std::chrono::duration<float>;  ///< In seconds; half the size, to seven digits.
  uint64_t grants = 0;
  uint32_t contended = 0;  ///< Grants that had to wait.
  uint32_t timeouts = 0;
  uint32_t deadlocks = 0;
  uint32_t lost = 0;
  Duration wait_total{};  ///< Over the contended grants.
  uint64_t holds = 0;
  Duration hold_total{};
  Longest wait_max{}, hold_max{};

  void waited(Duration time) {
    ++contended;
    wait_total += time;
    wait_max = std::max(wait_max, Longest(time));
  }
  void was_held(Duration time) {
    ++holds;
    hold_total += time;
    hold_max = std::max(hold_max, Longest(time));
  }
};

/// What this node holds of a lock towards other nodes, or asks for. It lasts as long as this node
/// needs anything of the lock.
struct Claim {
  ClaimId id = ClaimId::kNone;
  Lock* lock = nullptr;
  Mode mode = Mode::kNL;
  SlotClaim slots;                 ///< If there are any, the mode is CW.
  bool held = false;               ///< Granted once; in NL it keeps the value block alive.
  bool asking = false;             ///< An acquire is under way; its answer will come.
  bool in_call = false;            ///< We are inside the verb; an answer now is only noted.
  bool weakening = false;          ///< The last acquire was to give up a part of it.
  Mode asked = Mode::kNL;          ///< By the last acquire,
  SlotClaim asked_slots;           ///< and of slots.
  bool undescribed = false;        ///< The backend is yet to be told who holds.
  bool contended = false;          ///< Another node waits for it.
  uint32_t turns = 0;              ///< So many more are granted under it when it is contended.
  bool stood_back = false;         ///< A timer lets newcomers go on after a while.
  LockErrc error = LockErrc::kOk;  ///< Of the last acquire.
  bool doubted = false;            ///< A deadlock was its answer, which is looked at once more:
  TimerId second_look = TimerId::kNone;  ///< then; until then it counts as under way.
  OwnerId asked_for = OwnerId::kNone;
  TokenBlock tokens;
};

/// The inode number of every lock of this name; never 0, and its top bit is set.
uint64_t lock_inode(uint32_t lockspace, std::string_view name);

/// One lock: who holds it, who waits, and the rules between them. It knows no time, no claim's
/// protocol and nobody outside: LockTable drives it. Every step is O(1) on average, or O(log n) in
/// the waiters, except that waiting conversions are looked through one by one (mostly they are few:
/// of two that block each other the later is refused).
struct Lock {
  Lockspace* space = nullptr;
  const std::string* key = nullptr;  ///< Its name, as the lockspace's map has it.
  Owner* first = nullptr;            ///< Those that hold, NL included, oldest first.
  Owner* last = nullptr;
  std::array<uint32_t, kModeCount> granted{};  ///< How many hold each mode; slots apart.
  uint32_t slots_held = 0;
  uint32_t slot_size = 0;  ///< Of the semaphore in use; 0: none.
  uint32_t owners = 0;     ///< How many Owner records name this lock.
  uint32_t changes = 0;    ///< Counts what a picture would show.
  bool watched = false;    ///< Somebody polls: report `changed`.
  bool idle = false;       ///< Nobody has it open or pinned; kept for its statistics.
  std::optional<Pin> pin;
  uint64_t token = 0;      ///< The last one given.
  Claim* claim = nullptr;  ///< Null while this node needs nothing of it.
  LockStats stats;
  std::unique_ptr<std::array<uint8_t, 32>> lvb;
  bool lvb_lost = false;      ///< A node died that could have written it; until it is written anew.
  Lock* idle_prev = nullptr;  ///< In the table's list of records nobody needs.
  Lock* idle_next = nullptr;

  /// The queues: conversions of what is held above NL go first; then new requests, one queue a
  /// mode (the seventh for slots), so that looking at the heads is looking at everything.
  struct Queues {
    WaitQueue<Owner> converting;
    std::array<WaitQueue<Owner>, kModeCount + 1> waiting;
    size_t size = 0;
    size_t impatient = 0;  ///< Of these, how many would not wait for more than the claim.
  };
  std::unique_ptr<Queues> queues;  ///< Null while nobody waits.

  std::string_view name() const { return *key; }
  bool held() const;  ///< By anybody, above NL.
  bool visible() const { return held() || pin; }
  size_t waiters() const { return queues ? queues->size : 0; }
  /// Does anybody wait for it, here or on another node that has said so?
  bool is_wanted() const { return waiters() != 0 || (claim != nullptr && claim->contended); }
  uint64_t inode() const;

  /// Would `want` go with what others than `owner` hold?
  bool fits(const Owner& owner, Share want) const;
  /// Would a new request of `want` have to wait behind somebody who waits already?
  bool must_queue(Share want) const;
  /// Would the conversion of `owner` to `want` and those under way block each other for ever?
  bool conversion_deadlock(const Owner& owner, Share want) const;
  /// The next to be granted, or null.
  Owner* next_grantable() const;
  /// Those that hold and that `waiter` waits for, conversions ahead of it included, until `visit`
  /// returns true. It goes through all `holders()`, and may visit one twice.
  bool any_holder_against(const Owner& waiter, const std::function<bool(Owner&)>& visit) const;
  size_t holders() const;  ///< How many that goes through.
  /// The new requests that `waiter` waits for: the nearest of each queue, else null; beside() leads
  /// to the others.
  std::array<Owner*, kModeCount + 1> nearest_ahead(const Owner& waiter) const;
  /// The next ahead of a new request in its queue for which it does not wait itself, or null.
  Owner* beside(const Owner& waiter) const;
  Mode claimed() const { return claim != nullptr ? claim->mode : Mode::kNL; }
  bool asking() const { return claim != nullptr && claim->asking; }
  /// What this node needs towards others if `owner` (may be null) came to hold `want`.
  Mode needed(const Owner* owner, Share want) const;
  /// The same of slots: how many.
  uint32_t slots_needed(const Owner* owner, Share want) const;

  void enqueue(Owner& owner);  ///< owner.wait is set, with its place.
  void dequeue(Owner& owner);  ///< Leaves owner.wait alone.
  void hold(Owner& owner, Share share);
  void drop(Owner& owner);

  /// Visits the waiters in the order of their turns.
  std::vector<Owner*> waiting_in_order() const;
};

/// A directory of locks.
struct Lockspace {
  uint32_t id = 0;
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0777;
  uint64_t created = 0;      ///< Seconds since 1970.
  uint64_t capacity = 2048;  ///< Of numbered locks; podman's default.
  uint64_t lowest_free = 0;  ///< No number below it is free.
  LockBackend* backend = nullptr;
  SpaceStats stats;
  std::string trouble;  ///< Why its backend is out of reach, as was last noted; empty: in reach.

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const noexcept {
      return std::hash<std::string_view>{}(s);
    }
  };
  std::unordered_map<std::string, Lock, Hash, std::equal_to<>> locks;
};

}  // namespace lockfs
