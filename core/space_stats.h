// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>

#include "core/lock_errc.h"
#include "core/mode.h"
#include "core/timer_queue.h"

namespace lockfs {

/// How long something took, counted in buckets.
struct Histogram {
  /// Upper bounds in seconds; what took longer is in the last count. From a hand-over on one
  /// machine, some 100 us, to a job of hours, in threes.
  static constexpr std::array<double, 16> kBounds = {
      0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 10000};
  std::array<uint64_t, kBounds.size() + 1> counts{};
  Duration sum{};

  void add(Duration time) {
    const double seconds = std::chrono::duration<double>(time).count();
    size_t bucket = 0;
    while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
    ++counts[bucket];
    sum += time;
  }
  void add(const Histogram& more) {
    for (size_t i = 0; i < counts.size(); ++i) counts.at(i) += more.counts.at(i);
    sum += more.sum;
  }
};

/// Lockspaces whose ids are up to this are counted apart, later ones of the mount together: so that
/// whoever keeps the counts does not keep more and more.
inline constexpr uint32_t kCountedApart = 100;

/// What happened in a lockspace since it is there, for all its locks together.
struct SpaceStats {
  std::array<uint64_t, kModeCount + 1> grants{};    ///< By mode; the last for slots.
  std::array<uint64_t, kLockErrcCount> refusals{};  ///< By LockErrc: how requests ended otherwise.
  uint64_t lost = 0;                                ///< Holders whose lock was taken from them,
  uint64_t broken = 0;                              ///< by a person's command: not among the lost.
  uint64_t waiters = 0;                             ///< Now.
  uint64_t holders = 0;                             ///< Descriptors, now, above NL.
  Histogram wait;                                   ///< Of the grants that had to wait.
  Histogram hold;

  void granted(Share share) {
    ++grants[share.is_slot() ? kModeCount : static_cast<size_t>(share.mode)];
  }
  void add(const SpaceStats& more) {
    for (size_t i = 0; i < grants.size(); ++i) grants.at(i) += more.grants.at(i);
    for (size_t i = 0; i < refusals.size(); ++i) refusals.at(i) += more.refusals.at(i);
    lost += more.lost;
    broken += more.broken;
    waiters += more.waiters;
    holders += more.holders;
    wait.add(more.wait);
    hold.add(more.hold);
  }
};

}  // namespace lockfs
