// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lockfs {

/// Pointers in the order of their places. To join at the end and to leave at either end is O(1) on
/// average, to leave from the midst or to look for a place O(log n); only to join in the midst,
/// with a place that was kept, is O(n). The pointers lie side by side, and an empty one has
/// allocated nothing.
template <typename T>
class WaitQueue {
 public:
  bool empty() const { return live_ == 0; }
  size_t size() const { return live_; }
  T* front() const { return entries_[head_].item; }

  /// `place` is not in the queue.
  void insert(uint64_t place, T* item) {
    if (empty() || entries_.back().place < place) {
      entries_.push_back({place, item});
    } else {
      auto at = find(place);
      if (at->place == place) {
        at->item = item;  // It left from here.
      } else {
        entries_.insert(at, {place, item});
      }
    }
    ++live_;
  }

  /// `place` is in the queue.
  void erase(uint64_t place) {
    find(place)->item = nullptr;
    --live_;
    // The ends are always filled, so that front() and insert() need not look for them.
    if (empty()) {
      entries_.clear();
      head_ = 0;
      return;
    }
    while (entries_[head_].item == nullptr) ++head_;
    while (entries_.back().item == nullptr) entries_.pop_back();
    if (entries_.size() > 2 * live_ + kSlack) compact();
  }

  /// Visits all in order until `visit(item)` returns true; then true.
  template <typename Visit>
  bool any(Visit&& visit) const {
    for (size_t i = head_; i < entries_.size(); ++i) {
      if (entries_[i].item != nullptr && visit(*entries_[i].item)) return true;
    }
    return false;
  }

  /// The last before `place`, or null.
  T* before(uint64_t place) const {
    auto at = const_cast<WaitQueue*>(this)->find(place);
    while (at != entries_.begin() + static_cast<ptrdiff_t>(head_)) {
      --at;
      if (at->item != nullptr) return at->item;
    }
    return nullptr;
  }

 private:
  struct Entry {
    uint64_t place = 0;
    T* item = nullptr;  ///< Null when it has left.
  };
  static constexpr size_t kSlack = 16;

  typename std::vector<Entry>::iterator find(uint64_t place) {
    const auto first = entries_.begin() + static_cast<ptrdiff_t>(head_);
    if (first != entries_.end() && first->place == place) return first;
    return std::lower_bound(first, entries_.end(), place,
                            [](const Entry& entry, uint64_t p) { return entry.place < p; });
  }

  void compact() {
    std::erase_if(entries_, [](const Entry& entry) { return entry.item == nullptr; });
    head_ = 0;
  }

  std::vector<Entry> entries_;
  size_t head_ = 0;  ///< All before it have left.
  size_t live_ = 0;
};

}  // namespace lockfs
