// SPDX-License-Identifier: MIT
// What a segment's locks look like: descriptions, pins, and the check of it all.
#include <fmt/format.h>

#include <algorithm>

#include "backends/key_values.h"
#include "backends/shm/lock_segment.h"

namespace lockfs::shm {
namespace {

std::string_view name_in(std::string_view key) { return key.substr(key.find('\0') + 1); }

uint64_t sum_of(const Text& text) { return text_checksum({text.words.data(), kTextBytes}); }

}  // namespace

Text* LockSegment::text_of(Lock& lock, uint32_t node) const {
  for (Text& text : lock.texts) {
    if (text.owner.load() == node + 1) return &text;
  }
  return nullptr;
}

void LockSegment::describe(uint32_t node, Place place, const Presence& who) {
  Lock& record = lock(place);
  if (!claim(node, place).any() || claim(node, place).kept) return;
  Text* text = text_of(record, node);
  for (Text& other : record.texts) {
    if (text == nullptr && other.owner.load() == 0) text = &other;
  }
  if (text == nullptr) return;  // The node's own words are shown then.
  std::string words = presence_words(who);
  words.resize(kTextBytes, ' ');
  text->check.store(0);
  std::copy(words.begin(), words.end(), text->words.begin());
  text->check.store(sum_of(*text));
  text->owner.store(node + 1);
}

std::optional<Pin> LockSegment::pin_of(const Lock& lock) const {
  const uint32_t which = lock.pinned.load();
  if (which == 0) return std::nullopt;
  if (which > lock.pins.size()) throw DamagedSegment("a pin that is none");
  const PinRecord& pin = lock.pins[which - 1];
  const uint32_t mode = pin.mode.load();
  return Pin{pin.uid.load(), static_cast<uint16_t>(mode & 0xffffU), (mode & kAllocated) != 0};
}

RemoteLock LockSegment::show(const Lock& lock, uint32_t node) const {
  RemoteLock out;
  out.name = name_in(key_of(lock));
  out.pin = pin_of(lock);
  for (uint32_t i = 0; i < kNodes; ++i) {
    const Claim claim = this->claim(i, static_cast<Place>(&lock - locks_));
    if (i == node || !claim.any() || claim.kept) continue;
    Presence who;  // Until its words come, or for want of room: the mount.
    who.host = nodes_[i].host_name();
    for (const Text& text : lock.texts) {
      if (text.owner.load() != i + 1 || text.check.load() != sum_of(text)) continue;
      who = presence_of(key_values({text.words.data(), kTextBytes}));
    }
    if (claim.held != Mode::kNL) {
      uint64_t token = 0;
      if (is_exclusive(claim.held)) token = tokens(static_cast<Place>(&lock - locks_)).next;
      token = std::max(token, who.token);
      out.claims.push_back({claim.held, false, token, who});
    }
    if (claim.waits()) out.claims.push_back({claim.wanted, true, 0, who});
  }
  return out;
}

std::optional<RemoteLock> LockSegment::look(uint32_t node, std::string_view lockspace,
                                            std::string_view name) {
  const auto place = place_of(lockspace, name);
  if (!place) return std::nullopt;
  RemoteLock out = show(lock(*place), node);
  if (!out.pin && out.claims.empty()) return std::nullopt;
  return out;
}

std::optional<std::optional<RemoteLock>> LockSegment::look_outside(uint32_t node,
                                                                   std::string_view lockspace,
                                                                   std::string_view name) {
  try {
    const uint32_t changes = header_->changes.load();
    if (header_->busy.load() != 0) return std::nullopt;
    std::optional<RemoteLock> seen = look(node, lockspace, name);
    // By an exchange for itself, which what was read before cannot pass.
    if (!header_->changes.replace(changes, changes)) return std::nullopt;
    return seen;
  } catch (const DamagedSegment&) {  // Or half a change.
    return std::nullopt;
  }
}

std::vector<RemoteLock> LockSegment::look_all(uint32_t node, std::string_view lockspace) {
  std::vector<RemoteLock> out;
  for (Place place = 0; place < lock_count_; ++place) {
    const Lock& record = lock(place);
    if (record.used.load() == 0) continue;
    const std::string_view key = key_of(record);
    if (!key.starts_with(lockspace) || key.size() <= lockspace.size() ||
        key[lockspace.size()] != '\0') {
      continue;
    }
    RemoteLock shown = show(record, node);
    if (shown.pin || !shown.claims.empty()) out.push_back(std::move(shown));
  }
  return out;
}

LockErrc LockSegment::pin(std::string_view lockspace, std::string_view name, const Pin& pin,
                          bool fresh) {
  const auto place = place_for(lockspace, name);
  if (!place) return LockErrc::kLimit;
  Lock& record = lock(*place);
  const uint32_t now = record.pinned.load();
  if (now != 0 && fresh) return LockErrc::kExists;
  const uint32_t next = now == 1 ? 2 : 1;
  record.pins[next - 1].uid.store(pin.uid);
  record.pins[next - 1].mode.store(pin.mode | (pin.allocated ? kAllocated : 0));
  record.pinned.store(next);
  return LockErrc::kOk;
}

LockErrc LockSegment::unpin(std::string_view lockspace, std::string_view name) {
  const auto place = place_of(lockspace, name);
  if (!place || lock(*place).pinned.load() == 0) return LockErrc::kNotFound;
  lock(*place).pinned.store(0);
  collect(*place);
  return LockErrc::kOk;
}

std::optional<std::string> LockSegment::check() const {
  std::vector<bool> reached(lock_count_);
  for (uint32_t chain = 0; chain < lock_count_; ++chain) {
    for (uint32_t next = chains_[chain].load(); next != 0; next = lock(next - 1).next.load()) {
      const Lock& record = lock(next - 1);
      if (reached[next - 1]) return "a lock is in two chains";
      reached[next - 1] = true;
      if (record.used.load() != 1) return "a free lock is in a chain";
      if (record.hash.load() % lock_count_ != chain) return "a lock is in a chain of others";
    }
  }
  uint32_t free = 0;
  for (uint32_t next = header_->free.load(); next != 0; next = lock(next - 1).next.load()) {
    if (++free > lock_count_) return "the free list has no end";
    if (lock(next - 1).used.load() != 0) return "a lock in use is in the free list";
  }
  uint32_t used = 0;
  for (Place place = 0; place < lock_count_; ++place) {
    const Lock& record = lock(place);
    if (record.used.load() == 0) continue;
    ++used;
    const std::string name(name_in(key_of(record)));
    if (!reached[place]) return fmt::format("{} is in no chain", name);
    if (!in_use(record)) return fmt::format("{} is kept for nobody", name);
    if (next_to_go(record)) return fmt::format("somebody waits for {}, and could have it", name);
    for (uint32_t a = 0; a < kNodes; ++a) {
      for (uint32_t b = 0; b < a; ++b) {
        if (compatible(claim(a, place).held, claim(b, place).held)) continue;
        return fmt::format("{} is held by nodes {} and {}", name, a, b);
      }
    }
  }
  if (used + free != lock_count_) return "a lock is lost";
  return std::nullopt;
}

}  // namespace lockfs::shm
