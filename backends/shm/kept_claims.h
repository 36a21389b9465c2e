// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <unordered_map>

#include "backends/shm/lock_segment.h"

namespace lockfs::shm {

/// What a mount has released and may take again by LockSegment::retake(), if no other has taken it
/// away meanwhile: that only the segment knows.
class KeptClaims {
 public:
  static constexpr size_t kMost = 256;
  struct Kept {
    LockSegment::Place place = 0;
    Mode mode = Mode::kNL;
    TokenBlock tokens;  ///< What is left of them.
  };

  /// Removes and returns it.
  std::optional<Kept> take(const std::string& key) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return std::nullopt;
    const Kept kept = found->second;
    key_at_.erase(kept.place);
    by_key_.erase(found);
    return kept;
  }
  /// Adds it; returns another one, which is to be released, when there are too many.
  std::optional<Kept> put(const std::string& key, const Kept& kept) {
    std::optional<Kept> other;
    if (by_key_.size() >= kMost) other = take(std::string(by_key_.begin()->first));
    by_key_[key] = kept;
    key_at_[kept.place] = key;
    return other;
  }
  /// A place belongs to another name now.
  void forget(LockSegment::Place place) {
    const auto found = key_at_.find(place);
    if (found != key_at_.end()) take(std::string(found->second));
  }

 private:
  std::unordered_map<std::string, Kept> by_key_;
  std::unordered_map<LockSegment::Place, std::string> key_at_;
};

}  // namespace lockfs::shm
