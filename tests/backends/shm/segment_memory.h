// SPDX-License-Identifier: MIT
#pragma once
#include <sys/mman.h>

#include <cstring>
#include <new>
#include <string>

#include "backends/shm/lock_segment.h"

namespace lockfs::shm::test {

/// A segment in memory of this process and its children.
class SegmentMemory {
 public:
  explicit SegmentMemory(uint32_t locks) : size_(size_for(locks)) {
    base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    LockSegment::format(base_, locks);
  }
  ~SegmentMemory() { munmap(base_, size_); }
  SegmentMemory(const SegmentMemory&) = delete;
  SegmentMemory& operator=(const SegmentMemory&) = delete;

  LockSegment segment() const { return LockSegment(base_); }
  void* base() const { return base_; }
  size_t size() const { return size_; }
  void copy_from(const SegmentMemory& other) { std::memcpy(base_, other.base_, size_); }

 private:
  size_t size_;
  void* base_;
};

/// The node that only looks.
inline constexpr uint32_t kOnlooker = kNodes - 1;

/// The claims of a lock as words, in the order of the nodes: "EX PR+EX? CR?".
inline std::string claims_of(LockSegment& segment, const std::string& name) {
  std::string out;
  const auto lock = segment.look(kOnlooker, "space", name);
  if (!lock) return "free";
  if (lock->pin) out += "pin:" + std::to_string(lock->pin->uid) + " ";
  for (const RemoteClaim& claim : lock->claims) {
    out += std::string(mode_name(claim.mode)) + (claim.waiting ? "? " : " ");
  }
  return out;
}

}  // namespace lockfs::shm::test
