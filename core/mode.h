// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lockfs {

/// The six modes of the VMS distributed lock manager, weakest first.
enum class Mode : uint8_t { kNL, kCR, kCW, kPR, kPW, kEX };
inline constexpr size_t kModeCount = 6;

/// "NL" .. "EX".
std::string_view mode_name(Mode mode);

/// Reads a mode's name in any case; also "shared" (PR) and "exclusive" (EX).
std::optional<Mode> parse_mode(std::string_view word);

/// The DLM's table: may two owners hold these modes of one lock at the same time?
constexpr bool compatible(Mode a, Mode b) {
  //                                       NL CR CW PR PW EX, one bit each from the right
  constexpr std::array<uint8_t, 6> table = {0b111111, 0b011111, 0b000111,
                                            0b001011, 0b000011, 0b000001};
  return (table[static_cast<size_t>(a)] >> static_cast<size_t>(b) & 1) != 0;
}

/// The weakest mode that excludes all that `a` or `b` excludes: what a node must hold towards
/// others while it grants both to its own clients. CW with PR gives PW.
constexpr Mode join(Mode a, Mode b) {
  if ((a == Mode::kCW && b == Mode::kPR) || (a == Mode::kPR && b == Mode::kCW)) return Mode::kPW;
  return a > b ? a : b;
}

/// Does holding `held` give every right that `wanted` gives?
constexpr bool covers(Mode held, Mode wanted) { return join(held, wanted) == held; }

/// The modes whose grants take a new fencing token, and whose holder may write the lock value
/// block: those that admit no second writer.
constexpr bool is_exclusive(Mode mode) { return mode >= Mode::kPW; }

/// What an owner wants or holds of a lock: a mode, or one slot of a counting semaphore.
struct Share {
  Mode mode = Mode::kNL;
  uint32_t slots = 0;  ///< Size of the semaphore; 0: no slot, an ordinary mode.

  constexpr bool is_slot() const { return slots != 0; }
  constexpr bool above_null() const { return is_slot() || mode != Mode::kNL; }
  friend constexpr bool operator==(const Share&, const Share&) = default;
};

constexpr Share slot_of(uint32_t size) { return Share{Mode::kCW, size}; }

/// May these two stand side by side? Slots go with slots (counted elsewhere) and with NL only.
constexpr bool compatible(Share a, Share b) {
  if (!a.above_null() || !b.above_null()) return true;
  if (a.is_slot() || b.is_slot()) return a.is_slot() && b.is_slot();
  return compatible(a.mode, b.mode);
}

}  // namespace lockfs
