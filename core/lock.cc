// SPDX-License-Identifier: MIT
#include "core/lock.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace lockfs {
namespace {

constexpr size_t kSlotQueue = kModeCount;

size_t queue_of(Share want) { return want.is_slot() ? kSlotQueue : static_cast<size_t>(want.mode); }

Share share_of_queue(size_t queue, uint32_t slot_size) {
  return queue == kSlotQueue ? slot_of(slot_size) : Share{static_cast<Mode>(queue), 0};
}

// Slots go with slots only as far as they are counted, which a queue's order cannot see.
bool passes(Share want, Share waiter) { return compatible(want, waiter) && !want.is_slot(); }

}  // namespace

uint64_t lock_inode(uint32_t lockspace, std::string_view name) {
  // FNV-1a; the top bit keeps clear of the fixed nodes.
  uint64_t hash = 14695981039346656037ULL ^ lockspace;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  return hash | 1ULL << 63;
}

bool Lock::held() const {
  if (slots_held != 0) return true;
  return std::any_of(granted.begin() + 1, granted.end(), [](uint32_t n) { return n != 0; });
}

uint64_t Lock::inode() const { return lock_inode(space->id, name()); }

bool Lock::fits(const Owner& owner, Share want) const {
  if (!want.above_null()) return true;
  const bool own = owner.holding && owner.held.above_null();
  const uint32_t slots = slots_held - (own && owner.held.is_slot() ? 1 : 0);
  if (slots != 0 && (!want.is_slot() || slots >= want.slots)) return false;
  for (size_t i = 1; i < kModeCount; ++i) {
    const Share other{static_cast<Mode>(i), 0};
    const bool mine = own && owner.held == other;
    if (granted.at(i) > (mine ? 1U : 0U) && !compatible(want, other)) return false;
  }
  return true;
}

bool Lock::must_queue(Share want) const {
  if (!queues || !want.above_null()) return false;
  const auto blocks = [&](const Owner& o) { return !passes(want, o.wait->request.want); };
  if (queues->converting.any(blocks)) return true;
  for (size_t i = 0; i < queues->waiting.size(); ++i) {
    if (!queues->waiting.at(i).empty() && !passes(want, share_of_queue(i, slot_size))) return true;
  }
  return false;
}

bool Lock::conversion_deadlock(const Owner& owner, Share want) const {
  if (!queues) return false;
  // A converter waits for those whose held mode its wanted mode does not go with. Follow that
  // from `owner` through other converters: a way back to `owner` never ends. Whom a converter waits
  // for follows from what it wants, and of that there is little.
  std::array<Share, kModeCount + 1> wanted{want};
  std::array<bool, kModeCount + 1> known{};
  known.at(queue_of(want)) = true;
  size_t count = 1;
  bool returns = false;
  for (size_t i = 0; i < count && !returns; ++i) {
    returns = queues->converting.any([&](const Owner& other) {
      if (&other == &owner || compatible(wanted.at(i), other.held)) return false;
      const Share next = other.wait->request.want;
      if (!compatible(next, owner.held)) return true;
      if (!std::exchange(known.at(queue_of(next)), true)) wanted.at(count++) = next;
      return false;
    });
  }
  return returns;
}

Owner* Lock::next_grantable() const {
  if (!queues) return nullptr;
  Owner* found = nullptr;
  const auto goes = [&](Owner& owner) {
    if (fits(owner, owner.wait->request.want)) found = &owner;
    return found != nullptr;
  };
  if (queues->converting.any(goes)) return found;
  // The heads in the order of their places. One may go if it fits what is held and would not
  // have to wait behind an earlier head: those are exactly the earlier waiters, by mode.
  std::array<Owner*, kModeCount + 1> heads{};
  size_t count = 0;
  for (const auto& queue : queues->waiting) {
    if (queue.empty()) continue;
    Owner* head = queue.front();
    size_t at = count++;
    for (; at > 0 && heads.at(at - 1)->wait->sequence > head->wait->sequence; --at) {
      heads.at(at) = heads.at(at - 1);
    }
    heads.at(at) = head;
  }
  for (size_t i = 0; i < count; ++i) {
    const Share want = heads.at(i)->wait->request.want;
    const auto behind = [&](const Owner& o) { return !passes(want, o.wait->request.want); };
    if (!fits(*heads.at(i), want)) continue;
    if (std::any_of(heads.begin(), heads.begin() + static_cast<ptrdiff_t>(i),
                    [&](const Owner* o) { return behind(*o); })) {
      continue;
    }
    if (!queues->converting.any(behind)) return heads.at(i);
  }
  return nullptr;
}

bool Lock::any_holder_against(const Owner& waiter, const std::function<bool(Owner&)>& visit) const {
  const Share want = waiter.wait->request.want;
  if (!fits(waiter, want)) {
    for (Owner* o = first; o != nullptr; o = o->next) {
      const bool full = want.is_slot() && o->held.is_slot() && slots_held >= want.slots;
      if (o != &waiter && (full || !compatible(want, o->held)) && visit(*o)) return true;
    }
  }
  if (waiter.wait->converting || !queues) return false;
  return queues->converting.any(
      [&](Owner& o) { return !passes(want, o.wait->request.want) && visit(o); });
}

std::array<Owner*, kModeCount + 1> Lock::nearest_ahead(const Owner& waiter) const {
  std::array<Owner*, kModeCount + 1> nearest{};
  if (waiter.wait->converting || !queues) return nearest;
  for (size_t i = 0; i < nearest.size(); ++i) {
    if (passes(waiter.wait->request.want, share_of_queue(i, slot_size))) continue;
    nearest.at(i) = queues->waiting.at(i).before(waiter.wait->sequence);
  }
  return nearest;
}

Owner* Lock::beside(const Owner& waiter) const {
  const Share want = waiter.wait->request.want;
  if (!passes(want, want)) return nullptr;
  return queues->waiting.at(queue_of(want)).before(waiter.wait->sequence);
}

size_t Lock::holders() const {
  const size_t held = std::accumulate(granted.begin(), granted.end(), size_t{slots_held});
  return held + (queues ? queues->converting.size() : 0);
}

Mode Lock::needed(const Owner* owner, Share want) const {
  Mode need = want.mode;
  const bool own = owner != nullptr && owner->holding;
  if (slots_held > (own && owner->held.is_slot() ? 1U : 0U)) need = join(need, Mode::kCW);
  for (size_t i = 1; i < kModeCount; ++i) {
    const bool mine = own && owner->held == Share{static_cast<Mode>(i), 0};
    if (granted.at(i) > (mine ? 1U : 0U)) need = join(need, static_cast<Mode>(i));
  }
  return need;
}

uint32_t Lock::slots_needed(const Owner* owner, Share want) const {
  const bool own = owner != nullptr && owner->holding && owner->held.is_slot();
  return slots_held - (own ? 1U : 0U) + (want.is_slot() ? 1U : 0U);
}

void Lock::enqueue(Owner& owner) {
  if (!queues) queues = std::make_unique<Queues>();
  const Share want = owner.wait->request.want;
  auto& queue = owner.wait->converting ? queues->converting : queues->waiting.at(queue_of(want));
  queue.insert(owner.wait->sequence, &owner);
  ++queues->size;
  if (owner.wait->request.now) ++queues->impatient;
  if (want.is_slot()) slot_size = want.slots;
  ++changes;
}

void Lock::dequeue(Owner& owner) {
  const Share want = owner.wait->request.want;
  auto& queue = owner.wait->converting ? queues->converting : queues->waiting.at(queue_of(want));
  queue.erase(owner.wait->sequence);
  if (owner.wait->request.now) --queues->impatient;
  if (--queues->size == 0) queues.reset();
  ++changes;
}

void Lock::hold(Owner& owner, Share share) {
  drop(owner);
  owner.holding = true;
  owner.held = share;
  if (share.is_slot()) {
    ++slots_held;
    slot_size = share.slots;
  } else {
    ++granted.at(static_cast<size_t>(share.mode));
  }
  owner.prev = last;
  owner.next = nullptr;
  (last != nullptr ? last->next : first) = &owner;
  last = &owner;
  ++changes;
}

void Lock::drop(Owner& owner) {
  if (!owner.holding) return;
  if (owner.held.is_slot()) {
    --slots_held;
  } else {
    --granted.at(static_cast<size_t>(owner.held.mode));
  }
  (owner.prev != nullptr ? owner.prev->next : first) = owner.next;
  (owner.next != nullptr ? owner.next->prev : last) = owner.prev;
  owner.prev = owner.next = nullptr;
  owner.holding = false;
  owner.held = {};
  ++changes;
}

std::vector<Owner*> Lock::waiting_in_order() const {
  std::vector<Owner*> all;
  if (!queues) return all;
  const auto take = [&](Owner& owner) {
    all.push_back(&owner);
    return false;
  };
  queues->converting.any(take);
  const auto converting = static_cast<ptrdiff_t>(all.size());
  for (const auto& queue : queues->waiting) queue.any(take);
  std::sort(all.begin() + converting, all.end(),
            [](Owner* a, Owner* b) { return a->wait->sequence < b->wait->sequence; });
  return all;
}

}  // namespace lockfs
