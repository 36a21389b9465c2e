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
      const auto claimed = claim_for(lock, *next, next->wait->request);
      if (!claimed) {  // granted(), failed() or the end of a holder goes on here.
        refuse_impatient(lock);
        if (settle_claim(lock)) continue;
        return;
      }
      if (claimed == LockErrc::kOk) {
        grant_waiter(*next);
      } else {
        end_wait(*next, *claimed);
      }
    }
  } while (refuse_impatient(lock));
  settle_claim(lock);
  collect(lock);
}

void LockTable::grant_waiter(Owner& owner) {
  LockStats& stats = owner.lock->stats;
  Wait wait = std::move(*owner.wait);
  const Duration waited = timers_.now() - wait.since;
  finish_wait(owner);
  const LockErrc result = grant(owner, wait.request, wait.client, &wait);
  stats.waited(waited);
  if (result != LockErrc::kOk) note_end_of_wait(*owner.lock, wait, result);
  events_.push_back({owner.id, result, {}, false});
}

namespace {

// Does a claim on a mode, or on so many slots, do for what is needed? EX excludes all others, so
// the table may give out slots under it.
bool does(Mode mode, const SlotClaim& slots, Mode need, const SlotClaim& need_slots) {
  if (need_slots.count == 0) return slots.count == 0 && covers(mode, need);
  return mode == Mode::kEX || (slots.count >= need_slots.count && slots.size == need_slots.size);
}

}  // namespace

// kOk when the claim covers `request` now, nullopt when it is being asked for; else the backend
// refused at once.
std::optional<LockErrc> LockTable::claim_for(Lock& lock, Owner& owner, const Request& request) {
  if (!request.want.above_null()) {
    anchor(lock);
    return LockErrc::kOk;
  }
  Mode need = lock.needed(&owner, request.want);
  const bool is_slot = request.want.is_slot();
  const SlotClaim slots = {lock.slots_needed(&owner, request.want),
                           is_slot ? request.want.slots : lock.slot_size};
  if (!lock.space->backend->traits().shared_modes && !is_slot) need = Mode::kEX;
  const bool takes_token = is_exclusive(request.want.mode) && !request.want.is_slot();
  const auto ready = [&](const Claim& claim) {
    // While it is being made stronger, it is what it was until then, and covers this after it too.
    const bool stays =
        !claim.asking || (!claim.weakening && does(claim.asked, claim.asked_slots, need, slots));
    return stays && does(claim.mode, claim.slots, need, slots) &&
           (!takes_token || claim.tokens.next < claim.tokens.end);
  };
  if (yields(lock, owner)) {
    if (lock.needed(nullptr, {}) != Mode::kNL) {
      stand_back(*lock.claim);
      return std::nullopt;
    }
    give_up(lock);
  } else if (!request.now && gives_turn(lock)) {
    give_up(lock);
  }
  const auto take_turn = [](Claim& claim) {
    if (claim.turns > 0) --claim.turns;
    return LockErrc::kOk;
  };
  if (lock.claim != nullptr && ready(*lock.claim)) return take_turn(*lock.claim);
  if (lock.asking()) return std::nullopt;
  Claim& claim = claim_of(lock);
  claim.weakening = false;
  claim.asked_for = owner.id;
  // Until the grant the owner holds what it has, and it may not come to the grant.
  Mode all = owner.holding ? join(need, owner.held.mode) : need;
  // Slots go with no other mode: for both at once nobody else may have anything.
  if (owner.holding && owner.held.above_null() && owner.held.is_slot() != is_slot) all = Mode::kEX;
  if (&lock == out_of_reach_) {
    claim.error = LockErrc::kUnreachable;
  } else {
    acquire(claim, all, slots, request.now);
  }
  if (ready(claim)) return take_turn(claim);
  if (claim.asking) return std::nullopt;
  // A grant of too little is none.
  const LockErrc why = claim.error == LockErrc::kOk ? LockErrc::kNotSupported : claim.error;
  if (!claim.held) forget(claim);
  return why;
}

Claim& LockTable::claim_of(Lock& lock) {
  if (lock.claim != nullptr) return *lock.claim;
  auto [id, made] = claims_.emplace();
  made.id = id;
  made.lock = &lock;
  lock.claim = &made;
  return made;
}

// Who holds NL waits for no claim; but where nodes share the value block, one in NL keeps it alive.
void LockTable::anchor(Lock& lock) {
  if (lock.claim != nullptr || !lock.space->backend->traits().shares_value()) return;
  Claim& claim = claim_of(lock);
  claim.weakening = false;
  claim.asked_for = OwnerId::kNone;
  acquire(claim, Mode::kNL, {}, false);
  if (!claim.asking && !claim.held) forget(claim);
}

void LockTable::acquire(Claim& claim, Mode mode, SlotClaim slots, bool now) {
  claim.asking = true;
  claim.in_call = true;
  claim.error = LockErrc::kOk;
  const Lock& lock = *claim.lock;
  LockBackend& backend = *lock.space->backend;
  // Slots beside a stronger mode are only this node's, until that is given up.
  claim.asked = mode;
  claim.asked_slots = mode == Mode::kCW && slots.count != 0 ? slots : SlotClaim{};
  if (claim.asked_slots.count != 0 && backend.traits().other_nodes) {
    backend.acquire_slots(claim.id, lock.space->name, lock.name(), slots, now);
  } else {
    backend.acquire(claim.id, lock.space->name, lock.name(), mode, now);
  }
  claim.in_call = false;
}

// The backend knows the claim no more; answers that are under way find nothing.
void LockTable::forget(Claim& claim) {
  claim.lock->claim = nullptr;
  claims_.erase(claim.id);
}

void LockTable::granted(ClaimId id, Mode mode, TokenBlock tokens) {
  Claim* claim = claims_.find(id);
  if (claim == nullptr) return;  // Late: released meanwhile.
  claim->asking = false;
  const bool strict = strict_turns(*claim);
  // Of what it was; the hint comes again.
  if (claim->mode != mode && (claim->held || !strict)) claim->contended = false;
  claim->mode = mode;
  claim->slots = mode == Mode::kCW ? claim->asked_slots : SlotClaim{};
  if (!claim->held) claim->turns = strict ? 1 : kLocalTurns;
  claim->held = true;
  claim->tokens = tokens;
  if (claim->in_call) return;
  const Delivery delivery(*this);
  advance(*claim->lock);
}

void LockTable::failed(ClaimId id, LockErrc why) {
  Claim* claim = claims_.find(id);
  if (claim == nullptr) return;
  claim->asking = false;
  claim->error = why;
  if (claim->in_call) return;
  Lock& lock = *claim->lock;
  const OwnerId asked_for = claim->asked_for;
  if (!claim->held) forget(*claim);
  const Delivery delivery(*this);
  Owner* owner = owners_.find(asked_for);
  // Those behind it would ask the same backend, and wait as long, one after the other.
  if (why == LockErrc::kUnreachable && asked_for != OwnerId::kNone) out_of_reach_ = &lock;
  owner != nullptr && owner->wait ? fail_wait(*owner, why) : advance(lock);
  out_of_reach_ = nullptr;
}

// Is the claim being asked for on behalf of somebody who waits as long as it takes?
bool LockTable::asks_patiently(const Lock& lock) const {
  const Owner* asker = lock.asking() ? owners_.find(lock.claim->asked_for) : nullptr;
  return asker != nullptr && asker->wait && !asker->wait->request.now;
}

// Those who would not wait have waited for the claim's answer only, and only if it is near. True
// if there were any; then those behind them may go.
bool LockTable::refuse_impatient(Lock& lock) {
  if (!lock.queues || lock.queues->impatient == 0) return false;
  if (lock.asking() && !asks_patiently(lock)) return false;
  for (Owner* owner : lock.waiting_in_order()) {
    if (!owner->wait->request.now) continue;
    end_wait(*owner, LockErrc::kWouldBlock);
  }
  return true;
}

void LockTable::contended(ClaimId id) {
  Claim* claim = claims_.find(id);
  if (claim == nullptr || claim->contended) return;
  claim->contended = true;
  if (!strict_turns(*claim)) {
    claim->turns = kLocalTurns;
  } else if (claim->held) {
    claim->turns = static_cast<uint32_t>(claim->lock->waiters());
  }
  const Delivery delivery(*this);
  note_change(*claim->lock);
}

void LockTable::uncontended(ClaimId id) {
  Claim* claim = claims_.find(id);
  if (claim == nullptr || !claim->contended) return;
  claim->contended = false;
  const Delivery delivery(*this);
  note_change(*claim->lock);
  advance(*claim->lock);  // Newcomers that stood back.
}

bool LockTable::strict_turns(const Claim& claim) {
  return claim.lock->space->backend->traits().strict_turns;
}

void LockTable::stand_back(Claim& claim) {
  if (strict_turns(claim) || std::exchange(claim.stood_back, true)) return;
  timers_.schedule(timers_.now() + kStandBack, [this, id = claim.id] {
    Claim* again = claims_.find(id);
    if (again == nullptr) return;
    again->stood_back = false;
    again->turns = kLocalTurns;
    const Delivery delivery(*this);
    advance(*again->lock);
  });
}

// Must a newcomer stand back, so that the claim is given up when those that hold it end?
bool LockTable::yields(const Lock& lock, const Owner& owner) const {
  const bool newcomer = !owner.holding || !owner.held.above_null();
  return newcomer && lock.claim != nullptr && !lock.claim->asking && lock.claim->contended &&
         lock.claim->turns == 0;
}

// Where turns go around in order, but nobody says who else waits, somebody may: between two who
// hold here the claim is given up now and then. Slots are no claim to the whole of it.
bool LockTable::gives_turn(const Lock& lock) const {
  const LockTraits& traits = lock.space->backend->traits();
  return traits.other_nodes && traits.fifo && !traits.contention_hints && lock.claim != nullptr &&
         lock.claim->held && !lock.claim->asking && lock.claim->turns == 0 &&
         lock.claim->slots.count == 0 && lock.needed(nullptr, {}) == Mode::kNL;
}

void LockTable::lost(ClaimId id, std::string_view why) {
  Claim* claim = claims_.find(id);
  if (claim == nullptr) return;
  Lock& lock = *claim->lock;
  forget(*claim);
  lose_all(lock, why, Happening::Kind::kLost);
}

void LockTable::give_up(Lock& lock) {
  const ClaimId id = lock.claim->id;
  forget(*lock.claim);
  lock.space->backend->release(id);
}

// Gives up what the claim holds beyond the need of those who hold locally.
// True if it was made weaker at once.
bool LockTable::settle_claim(Lock& lock) {
  if (lock.claim == nullptr || lock.claim->asking) return false;
  Claim& claim = *lock.claim;
  const Mode need = lock.needed(nullptr, {});
  const LockTraits& traits = lock.space->backend->traits();
  if (need == Mode::kNL && !(traits.shares_value() && lock.first != nullptr)) {
    give_up(lock);
    return false;
  }
  SlotClaim slots = {lock.slots_needed(nullptr, {}), lock.slot_size};
  if (slots.count == 0) slots = {};
  if (!traits.other_nodes || (!traits.shared_modes && slots.count == 0)) return false;
  if (need == claim.mode && slots == claim.slots) return false;
  if (claim.weakening && claim.error != LockErrc::kOk) {  // It failed; wait for the next event.
    claim.weakening = false;
    return false;
  }
  claim.weakening = true;
  claim.asked_for = OwnerId::kNone;
  acquire(claim, need, slots, false);
  return !claim.asking && claim.mode == need && claim.slots == slots;
}

// Ends a wait without telling anybody; the caller knows or tells.
void LockTable::finish_wait(Owner& owner) {
  Lock& lock = *owner.lock;
  --lock.space->stats.waiters;
  graph_.waits_no_more(owner);
  lock.dequeue(owner);
  if (owner.wait->timer != TimerId::kNone) timers_.cancel(owner.wait->timer);
  quota.give(owner.wait->client.uid, Quota::kWaiters);
  owner.wait.reset();
  if (lock.asking() && !lock.claim->in_call && lock.claim->asked_for == owner.id) {
    lock.claim->asked_for = OwnerId::kNone;
    lock.space->backend->cancel(lock.claim->id);
  }
  note_change(lock);
}

void LockTable::fail_wait(Owner& owner, LockErrc result) {
  Lock& lock = *owner.lock;
  end_wait(owner, result);
  advance(lock);  // Those behind it may go now.
}

// The same, while the queue is not to move yet.
void LockTable::end_wait(Owner& owner, LockErrc result) {
  note_end_of_wait(*owner.lock, *owner.wait, result);
  finish_wait(owner);
  events_.push_back({owner.id, result, {}, false});
}

// Takes from the owner what it holds; whoever waits is not advanced yet.
void LockTable::drop(Owner& owner) {
  if (!owner.holding) return;
  Lock& lock = *owner.lock;
  if (owner.held.above_null()) {
    lock.stats.was_held(timers_.now() - owner.since);
    if (!owner.lost) note_end_of_hold(owner, Happening::Kind::kReleased, {});
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

void LockTable::lose(Owner& owner, std::string_view why, Happening::Kind kind) {
  Lock& lock = *owner.lock;
  ++lock.stats.lost;
  owner.lost = true;
  note_end_of_hold(owner, kind, why);
  events_.push_back({owner.id, LockErrc::kLost, std::string(why), true});
  if (owner.closed) return erase(owner);
  if (owner.wait) end_wait(owner, LockErrc::kLost);  // Nothing is there to convert any more.
  drop(owner);
}

void LockTable::erase(Owner& owner) {
  drop(owner);
  --owner.lock->owners;
  owners_.erase(owner.id);
}

void LockTable::note_change(Lock& lock) {
  ++lock.changes;
  if (lock.watched && (changed_.empty() || changed_.back() != &lock)) changed_.push_back(&lock);
  Claim* claim = lock.claim;
  if (claim != nullptr && !claim->undescribed && lock.space->backend->traits().other_nodes) {
    claim->undescribed = true;
    undescribed_.push_back(claim->id);
    if (undescribed_.size() == 1) {
      timers_.schedule(timers_.now() + kDescribeAfter, [this] { describe_claims(); });
    }
  }
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
