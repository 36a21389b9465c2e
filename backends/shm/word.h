// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace lockfs::shm {

/// The segment has bytes that no lockfs wrote, or not there: in doubt nothing more is granted.
class DamagedSegment : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// 32 bits in shared memory that are changed in one store and say so when anything else has
/// written over them: the upper half is a check of the value and of its place in the page. What
/// is random passes for a value once in 2^32.
class Word {
 public:
  uint32_t load() const {
    const uint64_t bits = bits_.load(std::memory_order_acquire);
    const auto value = static_cast<uint32_t>(bits);
    if (bits != sealed(value)) throw DamagedSegment("overwritten word");
    return value;
  }
  void store(uint32_t value) { bits_.store(sealed(value), std::memory_order_release); }

  /// Changes it if it is `from`, in one step.
  bool replace(uint32_t from, uint32_t to) {
    uint64_t bits = sealed(from);
    return bits_.compare_exchange_strong(bits, sealed(to), std::memory_order_acq_rel);
  }

 private:
  uint64_t sealed(uint32_t value) const {
    const uint64_t place = reinterpret_cast<uintptr_t>(this) & 0xfff;  // Alike in all processes.
    uint64_t mixed = (value + (place << 32) + 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 29) * 0x94d049bb133111ebULL;
    return (mixed & 0xffffffff00000000ULL) | value;
  }
  std::atomic<uint64_t> bits_;
};
static_assert(sizeof(Word) == 8 && std::atomic<uint64_t>::is_always_lock_free);

}  // namespace lockfs::shm
