// SPDX-License-Identifier: MIT
#include "backends/shm/lock_segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "backends/conversion_deadlock.h"
#include "backends/key_values.h"
#include "backends/shm/claim_word.h"

namespace lockfs::shm {
namespace {

std::string key_for(std::string_view lockspace, std::string_view name) {
  std::string key(lockspace);
  key += '\0';
  key += name;
  return key;
}

uint32_t hash_of(std::string_view key) {
  const uint64_t sum = text_checksum(key);
  return static_cast<uint32_t>(sum ^ sum >> 32U);
}

uint64_t head_check(const Header& header) {
  return text_checksum({reinterpret_cast<const char*>(&header), offsetof(Header, check)});
}

uint64_t whole(const Word& high, const Word& low) {
  return static_cast<uint64_t>(high.load()) << 32U | low.load();
}

// The upper half first: between the two stores the number is too high rather than too low.
void store_whole(Word& high, Word& low, uint64_t value) {
  high.store(static_cast<uint32_t>(value >> 32U));
  low.store(static_cast<uint32_t>(value));
}

}  // namespace

void LockSegment::format(void* base, uint32_t locks) {
  auto* header = new (base) Header;
  header->magic = kMagic;
  header->version = kVersion;
  header->lock_count = locks;
  header->size = size_for(locks);
  header->check = head_check(*header);
  header->changes.store(0);
  header->token_high.store(0);
  header->token_low.store(0);
  auto* bytes = static_cast<std::byte*>(base);
  auto* nodes = reinterpret_cast<Node*>(bytes + kNodesAt);
  for (uint32_t i = 0; i < kNodes; ++i) {
    nodes[i].used.store(0);
    nodes[i].pid.store(0);
    nodes[i].bell.store(0);
  }
  auto* records = reinterpret_cast<Lock*>(bytes + locks_at(locks));
  for (uint32_t i = 0; i < locks; ++i) records[i].used.store(0);
  header->busy.store(1);
  NodeSet nobody = 0;
  LockSegment segment(base);
  segment.repair(nobody);
  segment.end();
}

std::optional<std::string> LockSegment::check_head(const Header& header, uint64_t size) {
  if (header.magic != kMagic) return "it is no segment of lockfs";
  if (header.version != kVersion) {
    return fmt::format("it is of version {}, this lockfs knows version {}", header.version,
                       kVersion);
  }
  if (header.check != head_check(header)) return "its head is damaged";
  if (header.size != size || size != size_for(header.lock_count)) {
    return fmt::format("it has {} bytes, and should have {}", size, header.size);
  }
  return std::nullopt;
}

LockSegment::LockSegment(void* base)
    : header_(static_cast<Header*>(base)),
      nodes_(reinterpret_cast<Node*>(static_cast<std::byte*>(base) + kNodesAt)),
      chains_(reinterpret_cast<Word*>(static_cast<std::byte*>(base) + kChainsAt)),
      locks_(
          reinterpret_cast<Lock*>(static_cast<std::byte*>(base) + locks_at(header_->lock_count))),
      lock_count_(header_->lock_count) {}

bool LockSegment::begin(uint32_t node) {
  bool clean = false;
  uint32_t changes = 0;
  try {
    clean = header_->busy.load() == 0;
    changes = header_->changes.load();
  } catch (const DamagedSegment&) {  // As good as busy.
    clean = false;
  }
  header_->busy.store(1 + node);
  header_->changes.store(changes + 1);
  return clean;
}

void LockSegment::end() { header_->busy.store(0); }

std::optional<uint32_t> LockSegment::within() const {
  const uint32_t busy = header_->busy.load();
  if (busy == 0 || busy > kNodes) return std::nullopt;
  return busy - 1;
}

void LockSegment::repair(NodeSet& wake) {
  for (uint32_t i = 0; i < lock_count_; ++i) chains_[i].store(0);
  header_->free.store(0);
  for (Place place = lock_count_; place-- > 0;) {
    Lock& record = lock(place);
    if (record.used.load() == 0) {
      put_free(place);
      continue;
    }
    const uint32_t hash = record.hash.load();
    if (hash_of(key_of(record)) != hash) throw DamagedSegment("overwritten name");
    if (!in_use(record)) {
      record.used.store(0);
      put_free(place);
      continue;
    }
    Word& chain = chains_[hash % lock_count_];
    record.next.store(chain.load());
    chain.store(place + 1);
  }
  for (Place place = 0; place < lock_count_; ++place) {
    Lock& record = lock(place);
    if (record.used.load() == 0) continue;
    for (Text& text : record.texts) {
      const uint32_t owner = text.owner.load();
      if (owner > kNodes) throw DamagedSegment("a node that is none");
      if (owner != 0 && !claim(owner - 1, place).any()) text.owner.store(0);
    }
    advance(record, wake);
  }
}

Lock& LockSegment::lock(Place place) const {
  if (place >= lock_count_) throw DamagedSegment("a lock that is none");
  return locks_[place];
}

std::string_view LockSegment::key_of(const Lock& lock) const {
  const uint32_t size = lock.key_size.load();
  if (size > kKeyBytes) throw DamagedSegment("a name that is too long");
  return {lock.key.data(), size};
}

std::optional<LockSegment::Place> LockSegment::find(std::string_view key, uint32_t hash) const {
  uint32_t next = chains_[hash % lock_count_].load();
  for (uint32_t steps = 0; next != 0; ++steps) {
    if (steps == lock_count_) throw DamagedSegment("a chain without an end");
    const Lock& record = lock(next - 1);
    if (record.hash.load() == hash) {
      const std::string_view found = key_of(record);
      if (found == key) return next - 1;
      if (hash_of(found) != hash) throw DamagedSegment("overwritten name");
    }
    next = record.next.load();
  }
  return std::nullopt;
}

std::optional<LockSegment::Place> LockSegment::find_or_make(std::string_view key, uint32_t hash) {
  if (const auto found = find(key, hash)) return found;
  if (header_->free.load() == 0 && !take_all_away()) return std::nullopt;
  const uint32_t free = header_->free.load();
  const Place place = free - 1;
  Lock& record = lock(place);
  if (record.used.load() != 0) throw DamagedSegment("a free lock that is in use");
  header_->free.store(record.next.load());
  record.hash.store(hash);
  record.key_size.store(static_cast<uint32_t>(key.size()));
  std::copy(key.begin(), key.end(), record.key.begin());
  record.pinned.store(0);
  for (PinRecord& pin : record.pins) {
    pin.uid.store(0);
    pin.mode.store(0);
  }
  store_whole(record.token_high, record.token_low, 0);
  for (Word& claim : record.claims) claim.store(0);
  for (Text& text : record.texts) text.owner.store(0);
  record.used.store(1);
  Word& chain = chains_[hash % lock_count_];
  record.next.store(chain.load());
  chain.store(place + 1);
  return place;
}

std::optional<LockSegment::Place> LockSegment::place_of(std::string_view lockspace,
                                                        std::string_view name) const {
  const std::string key = key_for(lockspace, name);
  return find(key, hash_of(key));
}

std::optional<LockSegment::Place> LockSegment::place_for(std::string_view lockspace,
                                                         std::string_view name) {
  const std::string key = key_for(lockspace, name);
  if (key.size() > kKeyBytes) return std::nullopt;
  return find_or_make(key, hash_of(key));
}

bool LockSegment::in_use(const Lock& lock) const {
  if (lock.pinned.load() != 0) return true;
  const Claims claims = claims_of(lock);
  return std::any_of(claims.begin(), claims.end(), [](const Claim& c) { return c.any(); });
}

void LockSegment::put_free(Place place) {
  lock(place).next.store(header_->free.load());
  header_->free.store(place + 1);
}

void LockSegment::unlink(Place place) {
  Word* link = &chains_[lock(place).hash.load() % lock_count_];
  for (uint32_t steps = 0; steps < lock_count_; ++steps) {
    const uint32_t next = link->load();
    if (next == 0) break;
    if (next == place + 1) return link->store(lock(place).next.load());
    link = &lock(next - 1).next;
  }
  throw DamagedSegment("a lock that is in no chain");
}

// Frees the record of a lock that nobody needs any more.
void LockSegment::collect(Place place) {
  Lock& record = lock(place);
  if (in_use(record)) return;
  unlink(place);
  record.used.store(0);
  put_free(place);
}

Claim LockSegment::claim(uint32_t node, Place place) const {
  return unpacked(lock(place).claims[node].load());
}

TokenBlock LockSegment::tokens(Place place) const {
  const uint64_t first = whole(lock(place).token_high, lock(place).token_low);
  return {first, first + kTokens};
}

// More than any before, and not less than the microseconds since 1970, so that they grow even if
// the segment was lost.
void LockSegment::take_tokens(Lock& lock) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  const uint64_t first = std::max(whole(header_->token_high, header_->token_low) + 1, micros);
  store_whole(header_->token_high, header_->token_low, first + kTokens - 1);
  store_whole(lock.token_high, lock.token_low, first);
}

void LockSegment::grant(Lock& lock, uint32_t node, Mode mode) {
  if (is_exclusive(mode)) take_tokens(lock);
  lock.claims[node].store(packed({mode}));
}

LockSegment::Turn LockSegment::acquire(uint32_t node, std::string_view lockspace,
                                       std::string_view name, Mode mode, bool now,
                                       std::optional<Place>& place, NodeSet& wake) {
  place = place_for(lockspace, name);
  if (!place) return Turn::kFull;
  Lock& record = lock(*place);
  if (claim(node, *place).kept) record.claims[node].store(0);
  take_away(record, node, mode);
  const Claims claims = claims_of(record);
  const Mode held = claims[node].held;
  uint32_t ticket = 0;
  bool others_wait = false;
  bool delays = false;  // Somebody who waits.
  std::vector<Conversion> conversions;
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (i == node || !claims[i].waits()) continue;
    if (!others_wait || !before(claims[i].ticket, ticket)) ticket = claims[i].ticket + 1;
    others_wait = true;
    delays = delays || !compatible(mode, claims[i].wanted);
    if (claims[i].held != Mode::kNL) conversions.push_back({claims[i].held, claims[i].wanted});
  }
  if (fits(claims, node, mode) && (held != Mode::kNL || !delays)) {
    grant(record, node, mode);
    if (others_wait) advance(record, wake);  // Or it is to be told that they do.
    return Turn::kGranted;
  }
  const bool never = held != Mode::kNL && conversions_deadlock({held, mode}, conversions);
  if (now || never) {
    collect(*place);
    return now ? Turn::kRefused : Turn::kDeadlock;
  }
  record.claims[node].store(
      packed({held, mode, ticket & kTicketMask, held != Mode::kNL && claims[node].contended}));
  advance(record, wake);  // What stood against it may have been let go meanwhile.
  wake &= ~(NodeSet{1} << node);
  return claim(node, *place).waits() ? Turn::kWaits : Turn::kGranted;
}

bool LockSegment::cancel(uint32_t node, Place place, NodeSet& wake) {
  const Claim own = claim(node, place);
  if (!own.waits()) return false;
  if (own.held == Mode::kNL) {
    release(node, place, wake);
  } else {
    lock(place).claims[node].store(packed({own.held}));
    advance(lock(place), wake);
  }
  return true;
}

void LockSegment::release(uint32_t node, Place place, NodeSet& wake) {
  Lock& record = lock(place);
  if (!claim(node, place).any()) return;
  record.claims[node].store(0);
  if (Text* text = text_of(record, node)) text->owner.store(0);
  advance(record, wake);
  collect(place);
}

void LockSegment::release_kept(uint32_t node, Place place) {
  if (!claim(node, place).kept) return;
  lock(place).claims[node].store(0);
  collect(place);
}

void LockSegment::release_all(uint32_t node, NodeSet& wake) {
  for (Place place = 0; place < lock_count_; ++place) {
    if (lock(place).used.load() != 0) release(node, place, wake);
  }
}

}  // namespace lockfs::shm
