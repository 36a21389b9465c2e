// SPDX-License-Identifier: MIT
// What the table counts for each lockspace, and writes down for those who watch.
#include "core/lock_table.h"

namespace lockfs {

Happening& LockTable::note(Happening::Kind kind, const Lock& lock, Share share,
                           const Client& client) {
  Happening& noted = journal.add(kind, timers_.now(), lock.space->name, lock.name());
  noted.share = share;
  noted.thread = client.pid;
  noted.uid = client.uid;
  return noted;
}

// The owner has what it was granted; `had` it something above NL before?
void LockTable::note_grant(const Owner& owner, bool had, const Wait* waited) {
  SpaceStats& stats = owner.lock->space->stats;
  const bool has = owner.held.above_null();
  if (has && !had) ++stats.holders;
  if (has) stats.granted(owner.held);
  Happening& noted = note(Happening::Kind::kGranted, *owner.lock, owner.held, owner.client);
  noted.process = owner.process;
  noted.token = owner.token;
  if (waited == nullptr) return;
  noted.waited = !waited->request.now;
  noted.lasted = timers_.now() - waited->since;
  stats.wait.add(noted.lasted);
}

void LockTable::note_end_of_hold(const Owner& owner, Happening::Kind kind, std::string_view why) {
  if (!owner.held.above_null()) return;
  SpaceStats& stats = owner.lock->space->stats;
  const Duration held = timers_.now() - owner.since;
  --stats.holders;
  stats.hold.add(held);
  if (kind == Happening::Kind::kLost) ++stats.lost;
  if (kind == Happening::Kind::kBroken) ++stats.broken;
  Happening& noted = note(kind, *owner.lock, owner.held, owner.client);
  noted.process = owner.process;
  noted.token = owner.token;
  noted.lasted = held;
  noted.why = why;
}

// Who would not wait waits for the claim's answer only: that is no wait to tell of.
void LockTable::note_wait(const Owner& owner) {
  const Wait& wait = *owner.wait;
  if (wait.request.now) return;
  Happening& noted = note(Happening::Kind::kWaiting, *owner.lock, wait.request.want, wait.client);
  noted.process = wait.process;
}

void LockTable::note_end_of_wait(Lock& lock, const Wait& wait, LockErrc result) {
  ++lock.space->stats.refusals.at(static_cast<size_t>(result));
  if (wait.request.now) return;
  auto kind = Happening::Kind::kRefused;
  if (result == LockErrc::kTimedOut) kind = Happening::Kind::kTimeout;
  if (result == LockErrc::kInterrupted) kind = Happening::Kind::kInterrupted;
  if (result == LockErrc::kDeadlock) {
    kind = Happening::Kind::kDeadlock;
    ++lock.stats.deadlocks;
  }
  Happening& noted = note(kind, lock, wait.request.want, wait.client);
  noted.process = wait.process;
  noted.waited = true;
  noted.lasted = timers_.now() - wait.since;
  if (kind == Happening::Kind::kRefused) noted.why = make_error_code(result).message();
}

// A request that was refused before it waited.
void LockTable::note_refusal(const Owner& owner, const Client& client, Share want,
                             LockErrc result) {
  ++owner.lock->space->stats.refusals[static_cast<size_t>(result)];
  if (result == LockErrc::kDeadlock) {
    ++owner.lock->stats.deadlocks;
    note(Happening::Kind::kDeadlock, *owner.lock, want, client);
  }
}

void LockTable::note_trouble(Lockspace& space) {
  const bool was_up = space.trouble.empty();
  space.trouble = space.backend->trouble();
  if (space.trouble.empty() == was_up) return;
  const auto kind = was_up ? Happening::Kind::kBackendDown : Happening::Kind::kBackendUp;
  journal.add(kind, timers_.now(), space.name, {}).why = space.trouble;
}

void LockTable::reach_changed() {
  for (const auto& [id, space] : spaces_) note_trouble(*space);
}

}  // namespace lockfs
