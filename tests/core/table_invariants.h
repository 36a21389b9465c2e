// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string>

#include "core/journal.h"
#include "core/lock.h"

namespace lockfs {

/// What must hold of a lock whenever no verb is under way, by looking at all of it; empty if all
/// is well. With a backend that answers later, a grantable waiter may wait for the claim.
inline std::string broken_invariant(const Lock& lock) {
  std::array<uint32_t, kModeCount> granted{};
  uint32_t slots = 0;
  Mode need = Mode::kNL;
  for (const Owner* a = lock.first; a != nullptr; a = a->next) {
    if (!a->holding || a->lock != &lock) return "a holder that does not hold";
    if (a->held.is_slot()) {
      ++slots;
    } else {
      ++granted.at(static_cast<size_t>(a->held.mode));
    }
    need = join(need, a->held.mode);
    for (const Owner* b = a->next; b != nullptr; b = b->next) {
      if (!compatible(a->held, b->held)) return "two holders that exclude each other";
    }
  }
  if (granted != lock.granted) return "the counts of modes do not match the holders";
  if (slots != lock.slots_held) return "the count of slots does not match the holders";
  if (slots > 0 && slots > lock.slot_size) return "more slots held than there are";
  if (need != Mode::kNL && lock.claim == nullptr) return "held without a claim";
  if (!covers(lock.claimed(), need)) return "held beyond the claim";
  const bool anchored = lock.first != nullptr && lock.space->backend->traits().shares_value();
  if (need == Mode::kNL && lock.claim != nullptr && !lock.asking() && !anchored) {
    return "a claim that nobody needs";
  }
  const auto waiting = lock.waiting_in_order();
  if (waiting.size() != lock.waiters()) return "the count of waiters does not match the queues";
  size_t impatient = 0;
  for (const Owner* waiter : waiting) {
    if (!waiter->wait) return "a waiter that does not wait";
    if (waiter->wait->request.now) ++impatient;
  }
  if (impatient != (lock.queues ? lock.queues->impatient : 0))
    return "the impatient are miscounted";
  if (impatient != 0 && !lock.asking()) return "a try that is left waiting";
  // Where another node waits, newcomers stand back until the claim was given up.
  const bool yields =
      lock.claim != nullptr && lock.claim->contended && lock.claim->turns == 0 && need != Mode::kNL;
  if (lock.next_grantable() != nullptr && !lock.asking() && !yields) {
    return "a waiter whose turn it is";
  }
  return {};
}

/// The same of what a lockspace counts.
inline std::string broken_invariant(const Lockspace& space) {
  uint64_t holders = 0;
  uint64_t waiters = 0;
  for (const auto& [name, lock] : space.locks) {
    waiters += lock.waiters();
    for (const Owner* o = lock.first; o != nullptr; o = o->next) holders += o->held.above_null();
  }
  if (holders != space.stats.holders) return "the lockspace's holders are miscounted";
  if (waiters != space.stats.waiters) return "the lockspace's waiters are miscounted";
  return {};
}

/// Reads a journal on: each wait that it tells of has one end, and those without are there.
class JournalTally {
 public:
  /// What is wrong; empty if all is well. To be asked before the journal forgets what is new.
  std::string look(const Journal& journal, const Lockspace& space) {
    for (; seen_ < journal.end(); ++seen_) {
      const Happening& happening = journal.at(seen_);
      if (happening.kind == Happening::Kind::kWaiting) ++waiting_;
      if (happening.waited) --waiting_;
    }
    int64_t there = 0;
    for (const auto& [name, lock] : space.locks) {
      for (const Owner* waiter : lock.waiting_in_order()) there += !waiter->wait->request.now;
    }
    return there == waiting_ ? "" : "a wait was told without its end, or the reverse";
  }

 private:
  uint64_t seen_ = 0;
  int64_t waiting_ = 0;
};

}  // namespace lockfs
