// SPDX-License-Identifier: MIT
// The claim that must cover what is granted: asked for, granted, refused, given up.
#include <algorithm>
#include <utility>

#include "core/lock_table.h"

namespace lockfs {
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
  // Until the grant the owner holds what it has, and it may not come to the grant.
  Mode all = owner.holding ? join(need, owner.held.mode) : need;
  // Slots go with no other mode: for both at once nobody else may have anything.
  if (owner.holding && owner.held.above_null() && owner.held.is_slot() != is_slot) all = Mode::kEX;
  const auto ask = [&] {
    Claim& claim = claim_of(lock);
    claim.weakening = false;
    claim.asked_for = owner.id;
    if (&lock == out_of_reach_) {
      claim.error = LockErrc::kUnreachable;
    } else {
      acquire(claim, all, slots, request.now);
    }
    return &claim;
  };
  Claim* claim = ask();
  if (give_up_in_vain(*claim)) claim = ask();
  if (ready(*claim)) return take_turn(*claim);
  if (claim->asking) return std::nullopt;
  // A grant of too little is none.
  const LockErrc why = claim->error == LockErrc::kOk ? LockErrc::kNotSupported : claim->error;
  if (!claim->held) forget(*claim);
  return why;
}

// To convert what nobody here needs was in vain: others wait for that very claim. True if it is
// given up; then it is asked for anew, behind them.
bool LockTable::give_up_in_vain(const Claim& claim) {
  if (claim.error != LockErrc::kDeadlock || claim.asking || !claim.held) return false;
  if (claim.lock->needed(nullptr, {}) != Mode::kNL) return false;
  give_up(*claim.lock);
  return true;
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
  // Slots beside a stronger mode are only this node's, until that is given up.
  claim.asked = mode;
  claim.asked_slots = mode == Mode::kCW && slots.count != 0 ? slots : SlotClaim{};
  claim.doubted = false;
  ask_backend(claim, now);
}

void LockTable::ask_backend(Claim& claim, bool now) {
  claim.asking = true;
  claim.in_call = true;
  claim.error = LockErrc::kOk;
  const Lock& lock = *claim.lock;
  LockBackend& backend = *lock.space->backend;
  if (claim.asked_slots.count != 0 && backend.traits().other_nodes) {
    backend.acquire_slots(claim.id, lock.space->name, lock.name(), claim.asked_slots, now);
  } else {
    backend.acquire(claim.id, lock.space->name, lock.name(), claim.asked, now);
  }
  claim.in_call = false;
}

// Is the deadlock that the backend sees to be looked at once more?
bool LockTable::doubts(Claim& claim) {
  if (!is_for_patient(claim) || std::exchange(claim.doubted, true)) return false;
  claim.asking = true;
  claim.second_look = timers_.schedule(timers_.now() + kSecondLook, [this, id = claim.id] {
    const Delivery delivery(*this);
    look_again(*claims_.find(id));
  });
  return true;
}

void LockTable::look_again(Claim& claim) {
  claim.second_look = TimerId::kNone;
  ask_backend(claim, false);
  if (claim.asking) return;
  claim.error == LockErrc::kOk ? advance(*claim.lock) : failed(claim.id, claim.error);
}

// True if there was one: then nothing is asked for.
bool LockTable::end_doubt(Claim& claim) {
  if (claim.second_look == TimerId::kNone) return false;
  timers_.cancel(std::exchange(claim.second_look, TimerId::kNone));
  claim.asking = false;
  if (!claim.held) forget(claim);
  return true;
}

// The backend knows the claim no more; answers that are under way find nothing.
void LockTable::forget(Claim& claim) {
  timers_.cancel(claim.second_look);
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
  const Delivery delivery(*this);
  if (give_up_in_vain(*claim)) return advance(lock);
  if (why == LockErrc::kDeadlock && doubts(*claim)) return;
  // Those behind it would ask the same backend, and wait as long, one after the other. Who would
  // not wait hears it sooner than they: when nothing is granted yet.
  if (why == LockErrc::kUnreachable && is_for_patient(*claim)) out_of_reach_ = &lock;
  Owner* owner = owners_.find(claim->asked_for);
  if (!claim->held) forget(*claim);
  owner != nullptr && owner->wait ? fail_wait(*owner, why) : advance(lock);
  out_of_reach_ = nullptr;
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
  const bool crossed = claim->asking;  // What was asked meanwhile may be granted, to nobody.
  forget(*claim);
  if (crossed) lock.space->backend->release(id);
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

}  // namespace lockfs
