// SPDX-License-Identifier: MIT
#include "core/lock_table.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

namespace lockfs {
namespace {

// How long an interrupted wait's place is kept for the same owner: the kernel restarts a lock
// call within microseconds of a handled signal; a second leaves room for a slow machine.
constexpr auto kPlaceKept = std::chrono::seconds(1);

std::string random_key() {
  std::array<unsigned char, 16> bits{};
  if (getrandom(bits.data(), bits.size(), 0) != static_cast<ssize_t>(bits.size())) std::abort();
  std::string key;
  for (const unsigned char byte : bits) {
    key += "0123456789abcdef"[byte >> 4];
    key += "0123456789abcdef"[byte & 15];
  }
  return key;
}

bool slots_in_use(const Lock& lock) {
  if (lock.slots_held != 0) return true;
  if (!lock.queues) return false;
  const auto wants_slot = [](const Owner& o) { return o.wait->request.want.is_slot(); };
  return !lock.queues->waiting.back().empty() || lock.queues->converting.any(wants_slot);
}

}  // namespace

LockTable::LockTable(TimerQueue& timers, Processes& processes, LockObserver& observer)
    : timers_(timers), processes_(processes), observer_(observer), graph_(processes) {}

LockTable::~LockTable() = default;

OwnerId LockTable::open(Lockspace& space, std::string_view name, Client client, uint64_t tag) {
  Lock& lock = record(space, name);
  auto [id, owner] = owners_.emplace();
  owner.id = id;
  owner.tag = tag;
  owner.lock = &lock;
  owner.client = client;
  owner.opener = client.pid;
  ++lock.owners;
  return id;
}

void LockTable::close(OwnerId id) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr) return;
  const Delivery delivery(*this);
  if (owner->wait) {
    note_end_of_wait(*owner->lock, *owner->wait, LockErrc::kInterrupted);
    finish_wait(*owner);
  }
  const bool lingers =
      owner->holding && owner->held.above_null() && owner->extras && owner->extras->linger;
  Lock& lock = *owner->lock;
  if (!lingers) {
    erase(*owner);
    return advance(lock);
  }
  owner->closed = true;
  stop_timer(*owner->extras);
  owner->extras->expires = timers_.now() + *owner->extras->linger;
  owner->extras->timer = timers_.schedule(*owner->extras->expires, [this, id] {
    const Delivery within(*this);
    Owner* lingering = owners_.find(id);
    Lock& left = *lingering->lock;
    erase(*lingering);
    advance(left);
  });
  note_change(lock);
  advance(lock);
}

std::optional<LockErrc> LockTable::check(Owner& owner, const Request& request) {
  if (owner.lost) return LockErrc::kLost;
  if (owner.wait) return LockErrc::kBusy;
  const Lock& lock = *owner.lock;
  const LockTraits& traits = lock.space->backend->traits();
  if (request.want.is_slot()) {
    if (traits.other_nodes && !traits.slots) return LockErrc::kNotSupported;
    if (slots_in_use(lock) && lock.slot_size != request.want.slots) return LockErrc::kInvalid;
  }
  return std::nullopt;
}

// Whether flock(2) can convert without waiting, for then, as the kernel does, it gives up nothing
// on the way. A claim that other nodes see is not converted upwards: two nodes would block.
bool LockTable::fits_at_once(const Lock& lock, const Owner& owner, Share want) {
  if (!lock.fits(owner, want)) return false;
  return !lock.space->backend->traits().other_nodes ||
         covers(lock.claimed(), lock.needed(&owner, want));
}

std::optional<LockErrc> LockTable::request(OwnerId id, Request request, Client client) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr) return LockErrc::kNotFound;
  const Delivery delivery(*this);
  const Share want = request.want;
  const auto result = decide(*owner, std::move(request), client);
  if (result && *result != LockErrc::kOk) note_refusal(*owner, client, want, *result);
  return result;
}

std::optional<LockErrc> LockTable::decide(Owner& owner, Request request, Client client) {
  if (const auto refused = check(owner, request)) return refused;
  Lock& lock = *owner.lock;
  if (request.drop_first && owner.holding && !covers(owner.held.mode, request.want.mode) &&
      !fits_at_once(lock, owner, request.want)) {
    drop(owner);
    advance(lock);
  }
  if (request.now || timers_.now() >= owner.place_until) owner.place_kept = 0;
  const bool converting = owner.holding && owner.held.above_null();
  const bool can = lock.fits(owner, request.want) &&
                   (converting || owner.place_kept != 0 || !lock.must_queue(request.want));
  if (can && owner.place_kept == 0) {
    const auto claimed = claim_for(lock, owner, request);
    if (claimed == LockErrc::kOk) {
      const LockErrc result = grant(owner, request, client, nullptr);
      if (converting || result != LockErrc::kOk) advance(lock);
      return result;
    }
    if (claimed) return claimed;
    if (request.now && (asks_patiently(lock) || yields(lock, owner))) {
      return LockErrc::kWouldBlock;
    }
  } else if (request.now) {
    return LockErrc::kWouldBlock;
  }
  return enqueue(owner, std::move(request), client, converting);
}

std::optional<LockErrc> LockTable::enqueue(Owner& owner, Request request, Client client,
                                           bool converting) {
  Lock& lock = *owner.lock;
  if (converting && lock.conversion_deadlock(owner, request.want)) return LockErrc::kDeadlock;
  if (!quota.take(client.uid, Quota::kWaiters)) return LockErrc::kLimit;
  auto wait = std::make_unique<Wait>();
  wait->request = std::move(request);
  wait->client = client;
  wait->process = processes_.process_of(client.pid);
  wait->since = timers_.now();
  wait->converting = converting;
  const bool kept = owner.place_kept != 0;
  wait->sequence = kept ? owner.place_kept : ++last_sequence_;
  owner.place_kept = 0;
  owner.wait = std::move(wait);
  lock.enqueue(owner);
  ++lock.space->stats.waiters;
  graph_.waits(owner);
  note_change(lock);
  if (graph_.deadlocked(owner)) {
    finish_wait(owner);
    advance(lock);  // The queue that formed behind it in this call is empty; one rule for all.
    return LockErrc::kDeadlock;
  }
  note_wait(owner);
  const bool impatient = owner.wait->request.now;
  if (owner.wait->request.timeout || impatient) {
    owner.wait->deadline = timers_.now() + (impatient ? kImpatience : *owner.wait->request.timeout);
    owner.wait->timer = timers_.schedule(*owner.wait->deadline, [this, id = owner.id, impatient] {
      const Delivery delivery(*this);
      Owner* late = owners_.find(id);
      late->wait->timer = TimerId::kNone;
      if (!impatient) ++late->lock->stats.timeouts;
      fail_wait(*late, impatient ? LockErrc::kUnreachable : LockErrc::kTimedOut);
    });
  }
  if (kept) advance(lock);  // Its turn may have come while it was away.
  return std::nullopt;
}

LockErrc LockTable::grant(Owner& owner, Request& request, Client client, const Wait* waited) {
  Lock& lock = *owner.lock;
  const bool had = owner.holding && owner.held.above_null();
  const bool has = request.want.above_null();
  if (has && !had && !quota.take(client.uid, Quota::kNames)) return LockErrc::kLimit;
  if (!has && had) quota.give(owner.client.uid, Quota::kNames);
  if (had && has && owner.client.uid != client.uid) {
    if (!quota.take(client.uid, Quota::kNames)) return LockErrc::kLimit;
    quota.give(owner.client.uid, Quota::kNames);
  }
  if (had) graph_.dropped(owner.client.pid);
  if (has) graph_.held(client.pid);
  const Share before = owner.held;
  const bool same = owner.holding && before == request.want;
  if (had && !has) {
    lock.stats.was_held(timers_.now() - owner.since);
    note_end_of_hold(owner, Happening::Kind::kReleased, {});
  }
  if (!same) lock.hold(owner, request.want);
  owner.before = before;
  owner.client = client;
  owner.process = waited != nullptr ? waited->process : 0;
  if (!same || !had) owner.since = timers_.now();
  if (!same && !request.want.is_slot() && is_exclusive(request.want.mode)) {
    if (!(had && is_exclusive(before.mode))) lock.token = lock.claim->tokens.next++;
  }
  owner.token = has ? lock.token : 0;
  if (has && !same) ++lock.stats.grants;
  if ((has && !same) || waited != nullptr) note_grant(owner, had, waited);
  apply_options(owner, request);
  note_change(lock);
  return LockErrc::kOk;
}

void LockTable::apply_options(Owner& owner, Request& request) {
  if (owner.extras) {
    stop_timer(*owner.extras);
    if (!request.linger && owner.extras->linger) keys_.erase(owner.extras->key);
    owner.extras.reset();
  }
  if (!request.ttl && !request.linger && request.note.empty()) return;
  OwnerExtras& extra = extras(owner);
  extra.note = std::move(request.note);
  extra.ttl = request.ttl;
  extra.linger = request.linger;
  if (extra.linger) {
    extra.key = random_key();
    keys_[extra.key] = owner.id;
  }
  start_ttl(owner);
}

void LockTable::start_ttl(Owner& owner) {
  OwnerExtras& extra = *owner.extras;
  if (!extra.ttl) return;
  stop_timer(extra);
  extra.expires = timers_.now() + *extra.ttl;
  extra.timer = timers_.schedule(*extra.expires, [this, id = owner.id] {
    const Delivery delivery(*this);
    Owner* expired = owners_.find(id);
    expired->extras->timer = TimerId::kNone;
    Lock& lock = *expired->lock;
    lose(*expired, "its ttl ran out", Happening::Kind::kLost);
    advance(lock);
  });
}

void LockTable::cancel(OwnerId id) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr || !owner->wait) return;
  const Delivery delivery(*this);
  owner->place_kept = owner->wait->sequence;
  owner->place_until = timers_.now() + kPlaceKept;
  fail_wait(*owner, LockErrc::kInterrupted);
}

void LockTable::release(OwnerId id) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr) return;
  const Delivery delivery(*this);
  owner->lost = false;
  owner->place_kept = 0;
  Lock& lock = *owner->lock;
  if (owner->wait && owner->wait->converting) {
    lock.dequeue(*owner);
    owner->wait->converting = false;
    owner->wait->sequence = ++last_sequence_;
    drop(*owner);
    lock.enqueue(*owner);
  } else {
    drop(*owner);
  }
  advance(lock);
}

void LockTable::undo(OwnerId id) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr || !owner->holding) return;
  // The claim may cover no more than what is held, and others may have come in beside it.
  // Of slots and modes only EX, towards others, covers both.
  const bool other_kind = owner->lock->space->backend->traits().other_nodes &&
                          owner->before.is_slot() != owner->held.is_slot() &&
                          owner->held.mode != Mode::kEX;
  if (!owner->before.above_null() || !covers(owner->held.mode, owner->before.mode) || other_kind ||
      !owner->lock->fits(*owner, owner->before)) {
    return release(id);
  }
  const Delivery delivery(*this);
  owner->lock->hold(*owner, owner->before);
  note(Happening::Kind::kGranted, *owner->lock, owner->held, owner->client).token = owner->token;
  note_change(*owner->lock);
  advance(*owner->lock);
}

LockErrc LockTable::renew(OwnerId id, std::optional<Duration> ttl) {
  Owner* owner = owners_.find(id);
  if (owner == nullptr) return LockErrc::kNotFound;
  if (owner->lost) return LockErrc::kLost;
  if (!owner->holding || !owner->held.above_null()) return LockErrc::kInvalid;
  if (!ttl && !(owner->extras && owner->extras->ttl)) return LockErrc::kInvalid;
  if (ttl) extras(*owner).ttl = ttl;
  const Delivery delivery(*this);
  start_ttl(*owner);
  note_change(*owner->lock);
  return LockErrc::kOk;
}

LockErrc LockTable::resume(OwnerId id, std::string_view key, Client client) {
  Owner* owner = owners_.find(id);
  const auto known = keys_.find(std::string(key));
  if (owner == nullptr || known == keys_.end()) return LockErrc::kNotFound;
  Owner* old = owners_.find(known->second);
  if (old == owner || old->lock != owner->lock) return LockErrc::kNotFound;
  if (client.uid != 0 && client.uid != old->client.uid) return LockErrc::kNotYours;
  if (!old->closed || owner->holding || owner->wait) return LockErrc::kBusy;
  const Delivery delivery(*this);
  Lock& lock = *owner->lock;
  Request request;
  request.want = old->held;
  request.ttl = old->extras->ttl;
  request.linger = old->extras->linger;
  request.note = old->extras->note;
  const TimePoint since = old->since;
  const uint64_t token = old->token;
  const LockStats stats = lock.stats;
  const SpaceStats space_stats = lock.space->stats;
  erase(*old);
  lock.stats = stats;  // The hold goes on.
  lock.space->stats = space_stats;
  lock.hold(*owner, request.want);
  owner->lost = false;
  owner->client = client;
  owner->since = since;
  owner->token = token;
  owner->before = {};
  graph_.held(client.pid);
  quota.add(client.uid, Quota::kNames);  // It goes on: above a limit that is lower now as well.
  apply_options(*owner, request);
  note(Happening::Kind::kGranted, lock, owner->held, client).token = token;
  note_change(lock);
  return LockErrc::kOk;
}

size_t LockTable::break_lock(Lock& lock, std::string_view why) {
  return lose_all(lock, why, Happening::Kind::kBroken);
}

size_t LockTable::lose_all(Lock& lock, std::string_view why, Happening::Kind kind) {
  const Delivery delivery(*this);
  std::vector<Owner*> holders;
  for (Owner* o = lock.first; o != nullptr; o = o->next) {
    if (o->held.above_null()) holders.push_back(o);
  }
  for (Owner* holder : holders) lose(*holder, why, kind);
  advance(lock);
  return holders.size();
}

void LockTable::set_process(OwnerId id, pid_t process) {
  if (Owner* owner = owners_.find(id)) owner->process = process;
}

}  // namespace lockfs
