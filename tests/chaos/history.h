// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace lockfs::test {

/// What a worker takes of a lock: one of the six modes, or a slot of a semaphore of two.
enum class Take : uint8_t { kNL, kCR, kCW, kPR, kPW, kEX, kSlot };
inline constexpr size_t kTakes = 7;
inline constexpr size_t kSlots = 2;

/// As a mode string names it.
const char* name_of(Take take);

/// May both be held of one lock at the same time? From the design's table, not from lockfs's code;
/// slots go with slots, up to kSlots.
bool go_together(Take a, Take b);
/// PW and EX: their grants take a new token.
bool takes_token(Take take);

/// One share of one lock, surely held from `from`, stamped after the grant came back, to `to`,
/// stamped before its release was asked for. CLOCK_MONOTONIC, nanoseconds.
struct Grant {
  int64_t from = 0;
  int64_t to = 0;      ///< 0: held still.
  uint64_t token = 0;  ///< 0: not known.
  int32_t process = 0;
  uint8_t lock = 0;
  Take take = Take::kNL;
  bool goes_on = false;  ///< Converted from another exclusive mode: the token stays.
};

/// What is wrong with a history, in words; empty if nothing is. At most some twenty.
std::vector<std::string> violations(std::vector<Grant> history);

}  // namespace lockfs::test
