// SPDX-License-Identifier: MIT
// Who is next, and what is kept without being held.
#include "backends/shm/claim_word.h"
#include "backends/shm/lock_segment.h"

namespace lockfs::shm {

void LockSegment::advance(Lock& lock, NodeSet& wake) {
  do {
    while (const auto node = next_to_go(lock)) {
      grant(lock, *node, unpacked(lock.claims[*node].load()).wanted);
      wake |= NodeSet{1} << *node;
    }
  } while (mark_contended(lock, wake));
}

// Tells those that hold what others wait for, and takes away what is only kept. True when something
// was let go, and another may have its turn.
bool LockSegment::mark_contended(Lock& lock, NodeSet& wake) {
  bool let_go = false;
  const Claims claims = claims_of(lock);
  for (uint32_t waiter = 0; waiter < kNodes; ++waiter) {
    if (!claims[waiter].waits()) continue;
    for (uint32_t holder = 0; holder < kNodes; ++holder) {
      if (holder == waiter) continue;
      const uint32_t word = lock.claims[holder].load();
      Claim claim = unpacked(word);
      if (claim.contended || compatible(claims[waiter].wanted, claim.held)) continue;
      claim.contended = true;
      // Its node may keep or retake it at the same time: then all is looked at again.
      if (claim.kept || !lock.claims[holder].replace(word, packed(claim))) {
        take_away(lock, waiter, claims[waiter].wanted);
        let_go = true;
      } else {
        wake |= NodeSet{1} << holder;
      }
    }
  }
  return let_go;
}

// Ends what other nodes keep and `mode` does not go with.
void LockSegment::take_away(Lock& lock, uint32_t node, Mode mode) {
  for (uint32_t i = 0; i < kNodes; ++i) {
    const uint32_t word = lock.claims[i].load();
    const Claim claim = unpacked(word);
    if (i == node || !claim.kept || compatible(mode, claim.held)) continue;
    lock.claims[i].replace(word, 0);  // If it was retaken just now, it is held.
  }
}

// Ends all that is only kept: the segment is full. True if that helped.
bool LockSegment::take_all_away() {
  for (Place place = 0; place < lock_count_; ++place) {
    Lock& record = lock(place);
    if (record.used.load() == 0) continue;
    take_away(record, kNodes, Mode::kEX);
    collect(place);
  }
  return header_->free.load() != 0;
}

bool LockSegment::keep(uint32_t node, Place place) {
  Word& word = lock(place).claims[node];
  Claim claim = unpacked(word.load());
  if (claim.contended || claim.waits()) return false;
  if (Text* text = text_of(lock(place), node)) text->owner.store(0);
  const uint32_t held = packed(claim);
  claim.kept = true;
  return word.replace(held, packed(claim));
}

bool LockSegment::retake(uint32_t node, Place place, Mode kept, Mode mode) {
  Claim claim{kept};
  claim.kept = true;
  return lock(place).claims[node].replace(packed(claim), packed({mode}));
}

// Conversions go first, each as soon as it fits; new requests in the order of their tickets, none
// past another that it would delay.
std::optional<uint32_t> LockSegment::next_to_go(const Lock& lock) const {
  const Claims claims = claims_of(lock);
  const auto converts = [&](uint32_t i) { return claims[i].held != Mode::kNL; };
  const auto goes_before = [&](uint32_t a, uint32_t b) {
    if (converts(a) != converts(b)) return converts(a);
    return before(claims[a].ticket, claims[b].ticket);
  };
  std::optional<uint32_t> first;
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (!claims[i].waits() || !fits(claims, i, claims[i].wanted)) continue;
    bool delays = false;
    for (uint32_t other = 0; other < kNodes && !converts(i); ++other) {
      delays = delays || (other != i && claims[other].waits() && goes_before(other, i) &&
                          !compatible(claims[i].wanted, claims[other].wanted));
    }
    if (!delays && (!first || goes_before(i, *first))) first = i;
  }
  return first;
}

}  // namespace lockfs::shm
