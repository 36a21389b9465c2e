// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>

#include "backends/shm/lock_segment.h"

namespace lockfs::shm {

/// A claim as one Word, and the claims of a lock as they were a moment ago: a node may keep or
/// retake its own at any time, but in no stronger mode.
inline constexpr uint32_t kTicketBits = 24;
inline constexpr uint32_t kTicketMask = (1U << kTicketBits) - 1;

inline uint32_t packed(const Claim& claim) {
  return static_cast<uint32_t>(claim.held) | static_cast<uint32_t>(claim.wanted) << 3U |
         static_cast<uint32_t>(claim.contended) << 6U | static_cast<uint32_t>(claim.kept) << 7U |
         claim.ticket << 8U;
}

inline Claim unpacked(uint32_t bits) {
  if ((bits & 7U) >= kModeCount || (bits >> 3U & 7U) >= kModeCount) {
    throw DamagedSegment("a mode that is none");
  }
  return {static_cast<Mode>(bits & 7U), static_cast<Mode>(bits >> 3U & 7U), bits >> 8U,
          (bits >> 6U & 1U) != 0, (bits >> 7U & 1U) != 0};
}

// Tickets go round; those of one lock are never half the circle apart.
inline bool before(uint32_t a, uint32_t b) { return ((a - b) & kTicketMask) > kTicketMask / 2; }

using Claims = std::array<Claim, kNodes>;
inline Claims claims_of(const Lock& lock) {
  Claims out;
  for (uint32_t i = 0; i < kNodes; ++i) out[i] = unpacked(lock.claims[i].load());
  return out;
}

// What is only kept stands against it too, until it was taken away: its node may retake it.
inline bool fits(const Claims& claims, uint32_t node, Mode mode) {
  for (uint32_t i = 0; i < kNodes; ++i) {
    if (i != node && !compatible(mode, claims[i].held)) return false;
  }
  return true;
}

}  // namespace lockfs::shm
