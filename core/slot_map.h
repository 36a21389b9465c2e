// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace lockfs {

/// Values under ids that are never used twice: the low half of an id is a place, the high half
/// counts how often the place was filled. A stale id finds nothing. References stay valid until
/// their value is erased. Insert, find and erase are O(1). Ids below 2^32 are never given.
template <typename Id, typename T>
class SlotMap {
 public:
  template <typename... Args>
  std::pair<Id, T&> emplace(Args&&... args) {
    uint32_t place = 0;
    if (free_.empty()) {
      place = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      place = free_.back();
      free_.pop_back();
    }
    Slot& slot = slots_[place];
    slot.value.emplace(std::forward<Args>(args)...);
    ++size_;
    return {static_cast<Id>(uint64_t{slot.generation} << 32 | place), *slot.value};
  }

  T* find(Id id) {
    const auto raw = static_cast<uint64_t>(id);
    const auto place = static_cast<uint32_t>(raw);
    if (place >= slots_.size()) return nullptr;
    Slot& slot = slots_[place];
    return slot.generation == raw >> 32 && slot.value ? &*slot.value : nullptr;
  }
  const T* find(Id id) const { return const_cast<SlotMap*>(this)->find(id); }

  void erase(Id id) {
    if (find(id) == nullptr) return;
    const auto place = static_cast<uint32_t>(static_cast<uint64_t>(id));
    slots_[place].value.reset();
    --size_;
    // A place whose count is used up is left empty for good: an id must not come back.
    if (++slots_[place].generation != 0) free_.push_back(place);
  }

  size_t size() const { return size_; }

  /// Calls `visit(id, value)` for each; it must not insert or erase.
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[i];
      if (slot.value) visit(static_cast<Id>(uint64_t{slot.generation} << 32 | i), *slot.value);
    }
  }

 private:
  struct Slot {
    uint32_t generation = 1;
    std::optional<T> value;
  };
  std::deque<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t size_ = 0;
};

}  // namespace lockfs
