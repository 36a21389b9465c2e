// SPDX-License-Identifier: MIT
// The records behind lock_table.cc: lockspaces, names, pins, and those kept for their statistics.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <ctime>
#include <utility>

#include "core/lock_table.h"

namespace lockfs {

Lockspace& LockTable::add_lockspace(std::string name, LockBackend& backend) {
  const bool is_new = std::find(started_.begin(), started_.end(), &backend) == started_.end();
  if (is_new) {
    started_.push_back(&backend);
    backend.start(*this);
  }
  auto space = std::make_unique<Lockspace>();
  space->id = ++last_space_;
  space->name = std::move(name);
  space->backend = &backend;
  space->created = static_cast<uint64_t>(std::time(nullptr));
  Lockspace& added = *(spaces_[space->id] = std::move(space));
  if (!is_new) note_trouble(added);  // What has just been started tells.
  return added;
}

Lockspace* LockTable::find_lockspace(std::string_view name) {
  const auto named = [&](const auto& entry) { return entry.second->name == name; };
  const auto it = std::find_if(spaces_.begin(), spaces_.end(), named);
  return it == spaces_.end() ? nullptr : it->second.get();
}

Lockspace* LockTable::find_lockspace(uint32_t id) {
  const auto it = spaces_.find(id);
  return it == spaces_.end() ? nullptr : it->second.get();
}

LockErrc LockTable::remove_lockspace(Lockspace& space) {
  for (auto& [name, lock] : space.locks) {
    if (!lock.idle) return LockErrc::kBusy;
  }
  for (auto& [name, lock] : space.locks) {
    unlink_idle(lock);
    std::erase(changed_, &lock);
  }
  if (space.id > kCountedApart) former.add(space.stats);
  spaces_.erase(space.id);
  return LockErrc::kOk;
}

Lock* LockTable::find(Lockspace& space, std::string_view name) {
  const auto it = space.locks.find(name);
  return it == space.locks.end() ? nullptr : &it->second;
}

Lock& LockTable::record(Lockspace& space, std::string_view name) {
  auto it = space.locks.find(name);
  if (it == space.locks.end()) {
    it = space.locks.try_emplace(std::string(name)).first;
    it->second.space = &space;
    it->second.key = &it->first;
  }
  unlink_idle(it->second);
  return it->second;
}

void LockTable::write_lvb(Lock& lock, std::string_view value) {
  const Delivery delivery(*this);
  if (!lock.lvb) lock.lvb = std::make_unique<std::array<uint8_t, 32>>();
  lock.lvb->fill(0);
  std::memcpy(lock.lvb->data(), value.data(), std::min(value.size(), lock.lvb->size()));
  lock.lvb_lost = false;
  if (lock.claim != nullptr && lock.space->backend->traits().other_nodes) {
    lock.space->backend->set_value(lock.claim->id, {*lock.lvb, true});
  }
  note_change(lock);
}

void LockTable::value(ClaimId id, const LockValue& value) {
  const Claim* claim = claims_.find(id);
  if (claim == nullptr) return;
  Lock& lock = *claim->lock;
  if (!lock.lvb && !lock.lvb_lost && value.valid && value.bytes == LockValue().bytes) return;
  if (!lock.lvb) lock.lvb = std::make_unique<std::array<uint8_t, 32>>();
  *lock.lvb = value.bytes;
  lock.lvb_lost = !value.valid;
}

// A record that nobody has open or pinned is kept a while for its statistics alone.
void LockTable::collect(Lock& lock) {
  if (lock.owners != 0 || lock.pin || lock.claim != nullptr || lock.idle) return;
  lock.lvb.reset();
  lock.lvb_lost = false;
  lock.slot_size = 0;
  lock.watched = false;
  lock.idle = true;
  lock.idle_prev = idle_last_;
  lock.idle_next = nullptr;
  (idle_last_ != nullptr ? idle_last_->idle_next : idle_first_) = &lock;
  idle_last_ = &lock;
  ++idle_count_;
  while (idle_count_ > idle_limit) {
    Lock& oldest = *idle_first_;
    unlink_idle(oldest);
    std::erase(changed_, &oldest);
    auto& locks = oldest.space->locks;
    locks.erase(locks.find(oldest.name()));
  }
}

void LockTable::unlink_idle(Lock& lock) {
  if (!lock.idle) return;
  (lock.idle_prev != nullptr ? lock.idle_prev->idle_next : idle_first_) = lock.idle_next;
  (lock.idle_next != nullptr ? lock.idle_next->idle_prev : idle_last_) = lock.idle_prev;
  lock.idle_prev = lock.idle_next = nullptr;
  lock.idle = false;
  --idle_count_;
}

}  // namespace lockfs
