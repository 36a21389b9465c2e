// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "tests/chaos/history.h"

namespace lockfs::test {

/// The locks that the workers fight for, by number.
inline constexpr std::array kLockNames = {"a", "b", "c", "d"};

/// What one worker after the other writes down, in memory shared with the test: a new process
/// takes the seat of one that was killed.
struct Seat {
  static constexpr size_t kMost = 2000000;
  std::array<Grant, kMost> grants;
  std::atomic<size_t> count;
  std::atomic<uint64_t> operations;
  std::array<std::atomic<uint64_t>, 256> refused;  ///< By errno.
  std::atomic<int> strange;  ///< An errno that no request here may get; 0: none.
};

/// All seats, and the word to end.
struct Table {
  static constexpr size_t kSeats = 8;
  std::array<Seat, kSeats> seats;
  std::atomic<bool> end;
};

/// Takes, converts and gives up locks in `directory` at random, until table.end: then it gives up
/// all it holds and returns 0. A `liar` writes grants down that it never asked for.
int work(Table& table, Seat& seat, const std::string& directory, uint64_t seed, bool liar);

}  // namespace lockfs::test
