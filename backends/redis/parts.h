// SPDX-License-Identifier: MIT
#pragma once
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_backend.h"
#include "core/mode.h"

namespace lockfs::redis {

/// The parts of a message, as locks.lua writes them.
using Parts = std::vector<std::string_view>;

/// Of a text that NUL divides.
inline Parts split_parts(std::string_view text) {
  Parts parts;
  for (;;) {
    const size_t end = text.find('\0');
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// 0 where it is none.
template <typename Number>
Number number_in(std::string_view text) {
  Number value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// What stands for slots where a mode is told.
inline constexpr std::string_view kSlots = "6";

/// Nothing for -1, which is no mode at all. Slots are CW.
inline std::optional<Mode> mode_in(std::string_view text) {
  if (text == kSlots) return Mode::kCW;
  if (text.size() != 1 || text[0] < '0' || text[0] > '5') return std::nullopt;
  return static_cast<Mode>(text[0] - '0');
}

/// A mode, or slots, as it is told.
inline std::string mode_words(Mode mode, const SlotClaim& slots) {
  return slots.count != 0 ? std::string(kSlots) : std::to_string(static_cast<int>(mode));
}

}  // namespace lockfs::redis
