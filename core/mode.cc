// SPDX-License-Identifier: MIT
#include "core/mode.h"

#include "core/words.h"

namespace lockfs {
namespace {

constexpr std::array<std::string_view, kModeCount> kNames = {"NL", "CR", "CW", "PR", "PW", "EX"};

}  // namespace

std::string_view mode_name(Mode mode) { return kNames.at(static_cast<size_t>(mode)); }

std::optional<Mode> parse_mode(std::string_view word) {
  for (size_t i = 0; i < kModeCount; ++i) {
    if (same_word(word, kNames.at(i))) return static_cast<Mode>(i);
  }
  if (same_word(word, "shared")) return Mode::kPR;
  if (same_word(word, "exclusive")) return Mode::kEX;
  return std::nullopt;
}

}  // namespace lockfs
