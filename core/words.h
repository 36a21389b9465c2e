// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "core/timer_queue.h"

namespace lockfs {

/// In any case.
bool same_word(std::string_view a, std::string_view b);

/// A byte that is not to reach a terminal.
bool is_control(char c);

/// What somebody wrote, as an error message shows it: quoted, cut, without control characters.
std::string as_said(std::string_view word);

/// The longest duration that may be named: ten years.
inline constexpr auto kMaxDuration = std::chrono::hours(24 * 3653);

/// "500ms", "5s", "2m", "1h".
tl::expected<Duration, std::string> parse_duration(std::string_view text);

/// A decimal number from `least` to `most`, nothing else.
tl::expected<uint64_t, std::string> parse_number(std::string_view text, uint64_t least,
                                                 uint64_t most);

}  // namespace lockfs
