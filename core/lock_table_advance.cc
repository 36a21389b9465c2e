// SPDX-License-Identifier: MIT
// What follows from the verbs in lock_table.cc: grants whose turn has come, losses, and the end of
// records.
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

// Was it asked for on behalf of somebody who waits as long as it takes?
bool LockTable::is_for_patient(const Claim& claim) const {
  const Owner* asker = owners_.find(claim.asked_for);
  return asker != nullptr && asker->wait && !asker->wait->request.now;
}

bool LockTable::asks_patiently(const Lock& lock) const {
  return lock.asking() && is_for_patient(*lock.claim);
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
    if (!end_doubt(*lock.claim)) lock.space->backend->cancel(lock.claim->id);
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
