// SPDX-License-Identifier: MIT
// What follows from the verbs in lock_table.cc: grants whose turn has come, the claim that must
// cover them, losses, and the end of records.
#include <algorithm>
#include <utility>

#include "core/lock_table.h"

namespace lockfs {

LockTable::Delivery::~Delivery() {
  while (table_.depth_ == 1 && !(table_.events_.empty() && table_.changed_.empty())) {
    table_.deliver();
  }
  --table_.depth_;
}

void LockTable::deliver() {
  if (events_.empty()) {
    const Lock* lock = changed_.back();
    changed_.pop_back();
    return observer_.changed(*lock);
  }
  const Event event = std::move(events_.front());
  events_.pop_front();
  if (event.is_loss) return observer_.lost(event.owner, event.lost_why);
  observer_.answered(event.owner, event.result);
}

// Grants all whose turn it is. Called after anything that could let a waiter go; may erase `lock`.
void LockTable::advance(Lock& lock) {
  do {
    while (Owner* next = lock.next_grantable()) {
      if (!claim_ready(lock, *next, next->wait->request)) {
        if (lock.claim.asking) {  // granted() or failed() goes on here.
          refuse_impatient(lock);
          return;
        }
        finish_wait(*next);
        events_.push_back({next->id, lock.claim.refusal(), {}, false});
        continue;
      }
      grant_waiter(*next);
    }
  } while (refuse_impatient(lock));
  settle_claim(lock);
  collect(lock);
}

void LockTable::grant_waiter(Owner& owner) {
  LockStats& stats = owner.lock->stats;
  Wait wait = std::move(*owner.wait);
  finish_wait(owner);
  const LockErrc result = grant(owner, wait.request, wait.client);
  const Duration waited = timers_.now() - wait.since;
  ++stats.contended;
  stats.wait_total += waited;
  stats.wait_max = std::max(stats.wait_max, waited);
  events_.push_back({owner.id, result, {}, false});
}

// True when the claim covers `request` now. Otherwise it is being asked for (claim.asking), or the
// backend refused at once (claim.error).
bool LockTable::claim_ready(Lock& lock, Owner& owner, const Request& request) {
  if (!request.want.above_null()) return true;
  LockBackend& backend = *lock.space->backend;
  Claim& claim = lock.claim;
  Mode need = lock.needed(&owner, request.want);
  if (!backend.traits().shared_modes) need = Mode::kEX;
  const auto ready = [&] {
    const bool token = !is_exclusive(request.want.mode) || request.want.is_slot() ||
                       claim.tokens.next < claim.tokens.end;
    return claim.id != ClaimId::kNone && !claim.asking && covers(claim.mode, need) && token;
  };
  if (ready()) return true;
  if (claim.asking) return false;
  if (claim.id == ClaimId::kNone) claim.id = claims_.emplace(&lock).first;
  claim.asking = true;
  claim.in_call = true;
  claim.weakening = false;
  claim.error = LockErrc::kOk;
  claim.asked_for = owner.id;
  // Until the grant the owner holds what it has, and it may not come to the grant.
  if (owner.holding) need = join(need, owner.held.mode);
  backend.acquire(claim.id, lock.space->name, lock.name, need, request.now);
  claim.in_call = false;
  return ready();
}

void LockTable::granted(ClaimId id, Mode mode, TokenBlock tokens) {
  Lock** known = claims_.find(id);
  if (known == nullptr) return;  // Late: released meanwhile.
  Lock& lock = **known;
  lock.claim.asking = false;
  lock.claim.mode = mode;
  lock.claim.tokens = tokens;
  if (lock.claim.in_call) return;
  const Delivery delivery(*this);
  advance(lock);
}

void LockTable::failed(ClaimId id, LockErrc why) {
  Lock** known = claims_.find(id);
  if (known == nullptr) return;
  Lock& lock = **known;
  lock.claim.asking = false;
  lock.claim.error = why;
  const bool in_call = lock.claim.in_call;
  if (lock.claim.mode == Mode::kNL) {
    claims_.erase(id);
    lock.claim.id = ClaimId::kNone;
  }
  if (in_call) return;
  const Delivery delivery(*this);
  Owner* owner = owners_.find(lock.claim.asked_for);
  if (owner != nullptr && owner->wait) return fail_wait(*owner, why);
  advance(lock);
}

// Is the claim being asked for on behalf of somebody who waits as long as it takes?
bool LockTable::asks_patiently(const Claim& claim) const {
  const Owner* asker = claim.asking ? owners_.find(claim.asked_for) : nullptr;
  return asker != nullptr && asker->wait && !asker->wait->request.now;
}

// Those who would not wait have waited for the claim's answer only, and only if it is near. True
// if there were any; then those behind them may go.
bool LockTable::refuse_impatient(Lock& lock) {
  if (!lock.queues || lock.queues->impatient == 0) return false;
  if (lock.claim.asking && !asks_patiently(lock.claim)) return false;
  for (Owner* owner : lock.waiting_in_order()) {
    if (!owner->wait->request.now) continue;
    finish_wait(*owner);
    events_.push_back({owner->id, LockErrc::kWouldBlock, {}, false});
  }
  return true;
}

void LockTable::contended(ClaimId /*claim*/) {
  // No claim outlives its local holders yet, so there is nothing to give up.
}

void LockTable::lost(ClaimId id, std::string_view why) {
  Lock** known = claims_.find(id);
  if (known == nullptr) return;
  Lock& lock = **known;
  claims_.erase(id);
  lock.claim = {};
  break_lock(lock, why);
}

// Gives up what the claim holds beyond the need of those who hold locally.
void LockTable::settle_claim(Lock& lock) {
  Claim& claim = lock.claim;
  if (claim.id == ClaimId::kNone || claim.asking) return;
  const Mode need = lock.needed(nullptr, {});
  LockBackend& backend = *lock.space->backend;
  if (need == Mode::kNL) {
    const ClaimId id = claim.id;
    claims_.erase(id);
    claim = {};
    backend.release(id);
    return;
  }
  const LockTraits& traits = backend.traits();
  if (!traits.other_nodes || !traits.shared_modes || need == claim.mode) return;
  if (claim.weakening && claim.error != LockErrc::kOk) {  // It failed; wait for the next event.
    claim.weakening = false;
    return;
  }
  claim.asking = true;
  claim.in_call = true;
  claim.weakening = true;
  claim.error = LockErrc::kOk;
  claim.asked_for = OwnerId::kNone;
  backend.acquire(claim.id, lock.space->name, lock.name, need, false);
  claim.in_call = false;
}

// Ends a wait without telling anybody; the caller knows or tells.
void LockTable::finish_wait(Owner& owner) {
  Lock& lock = *owner.lock;
  graph_.waits_no_more(owner);
  lock.dequeue(owner);
  if (owner.wait->timer != TimerId::kNone) timers_.cancel(owner.wait->timer);
  quota.give(owner.wait->client.uid, Quota::kWaiters);
  owner.wait.reset();
  if (lock.claim.asking && !lock.claim.in_call && lock.claim.asked_for == owner.id) {
    lock.claim.asked_for = OwnerId::kNone;
    lock.space->backend->cancel(lock.claim.id);
  }
  note_change(lock);
}

void LockTable::fail_wait(Owner& owner, LockErrc result) {
  Lock& lock = *owner.lock;
  finish_wait(owner);
  events_.push_back({owner.id, result, {}, false});
  advance(lock);  // Those behind it may go now.
}

// Takes from the owner what it holds; whoever waits is not advanced yet.
void LockTable::drop(Owner& owner) {
  if (!owner.holding) return;
  Lock& lock = *owner.lock;
  if (owner.held.above_null()) {
    const Duration held = timers_.now() - owner.since;
    ++lock.stats.holds;
    lock.stats.hold_total += held;
    lock.stats.hold_max = std::max(lock.stats.hold_max, held);
    quota.give(owner.client.uid, Quota::kNames);
    graph_.dropped(owner.client.pid);
  }
  lock.drop(owner);
  owner.token = 0;
  if (owner.extras) {
    stop_timer(*owner.extras);
    if (owner.extras->linger) keys_.erase(owner.extras->key);
    owner.extras.reset();
  }
  note_change(lock);
}

void LockTable::lose(Owner& owner, std::string_view why) {
  Lock& lock = *owner.lock;
  ++lock.stats.lost;
  events_.push_back({owner.id, LockErrc::kLost, std::string(why), true});
  if (owner.closed) return erase(owner);
  if (owner.wait) {  // A conversion has nothing to convert any more.
    finish_wait(owner);
    events_.push_back({owner.id, LockErrc::kLost, {}, false});
  }
  drop(owner);
  owner.lost = true;
}

void LockTable::erase(Owner& owner) {
  drop(owner);
  --owner.lock->owners;
  owners_.erase(owner.id);
}

void LockTable::note_change(Lock& lock) {
  ++lock.changes;
  if (lock.watched && (changed_.empty() || changed_.back() != &lock)) changed_.push_back(&lock);
}

OwnerExtras& LockTable::extras(Owner& owner) {
  if (!owner.extras) owner.extras = std::make_unique<OwnerExtras>();
  return *owner.extras;
}

void LockTable::stop_timer(OwnerExtras& extras) {
  if (extras.timer != TimerId::kNone) timers_.cancel(extras.timer);
  extras.timer = TimerId::kNone;
  extras.expires.reset();
}

}  // namespace lockfs
