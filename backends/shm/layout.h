// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "backends/shm/word.h"

namespace lockfs::shm {

/// What the segment holds, version 1. Truth is in the nodes' `used`, the locks' `used`, `hash`,
/// key, pins and claims; each of these changes by one store, so that whoever dies between two
/// stores leaves every claim as it was or as it should be. The chains and the free list follow
/// from the truth and are made anew by whoever comes next (LockSegment::repair).
inline constexpr std::array<char, 16> kMagic = {"lockfs segment\n"};
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kNodes = 64;  ///< Mounts at a time; a set of them is 64 bits.
inline constexpr uint32_t kTexts = 4;   ///< Holders of one lock, of other nodes, that have words.
inline constexpr size_t kKeyBytes = 512;
inline constexpr size_t kTextBytes = 240;

struct Header {
  std::array<char, 16> magic;
  uint32_t version;
  uint32_t lock_count;  ///< A power of two.
  uint64_t size;        ///< Of the whole, bytes.
  uint64_t check;       ///< Of the four above.
  Word busy;            ///< 0, or 1 + the node that is in the midst of a change.
  Word changes;         ///< Counted up by each change that begins: looks need not be one.
  Word token_high;      ///< The highest token that was ever handed out, in two halves.
  Word token_low;
  Word free;  ///< The first free lock + 1, or 0.
};

struct Node {
  Word used;                   ///< 1: some mount took this place; it lives while it locks its byte.
  Word pid;                    ///< As that mount sees itself.
  std::atomic<uint32_t> bell;  ///< Counted up and woken when a claim was granted: a hint.
  uint32_t unused;
  std::array<char, 104> host;

  std::string_view host_name() const { return {host.data(), strnlen(host.data(), host.size())}; }
};

/// The words for one holder; they may be torn or gone, then `check` does not fit.
struct Text {
  Word owner;  ///< 1 + node; 0: free.
  std::atomic<uint64_t> check;
  std::array<char, kTextBytes> words;
};

struct PinRecord {
  Word uid;
  Word mode;  ///< Its bits, and kAllocated.
};
inline constexpr uint32_t kAllocated = 1U << 16;

struct Lock {
  Word used;  ///< 1, or 0 when it is in the free list.
  Word hash;  ///< Of the key.
  Word next;  ///< Lock + 1, in its chain or in the free list.
  Word key_size;
  Word pinned;  ///< 0: not; 1 or 2: by pins[0] or pins[1].
  std::array<PinRecord, 2> pins;
  Word token_high;  ///< Of the holder in an exclusive mode.
  Word token_low;
  std::array<char, kKeyBytes> key;  ///< lockspace NUL name
  std::array<Word, kNodes> claims;  ///< One for each node.
  std::array<Text, kTexts> texts;
};

/// Where things are, from the beginning of the segment.
constexpr size_t kNodesAt = 4096;
constexpr size_t kChainsAt = kNodesAt + kNodes * sizeof(Node);
constexpr size_t locks_at(uint32_t locks) {
  return (kChainsAt + locks * sizeof(Word) + 4095) / 4096 * 4096;
}
constexpr size_t size_for(uint32_t locks) { return locks_at(locks) + locks * sizeof(Lock); }

}  // namespace lockfs::shm
