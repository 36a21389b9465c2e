// SPDX-License-Identifier: MIT
#include "core/words.h"

#include <strings.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace lockfs {

using tl::make_unexpected;

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string as_said(std::string_view word) {
  std::string out = "'";
  for (const char c : word.substr(0, 40)) out += is_control(c) ? '?' : c;
  return out + (word.size() > 40 ? "...'" : "'");
}

tl::expected<uint64_t, std::string> parse_number(std::string_view text, uint64_t least,
                                                 uint64_t most) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size() && !text.empty();
  if (whole && error == std::errc() && value >= least && value <= most) return value;
  return make_unexpected(as_said(text) + " is not a whole number from " + std::to_string(least) +
                         " to " + std::to_string(most));
}

tl::expected<Duration, std::string> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view name;
    Duration length;
  };
  constexpr std::array units = {
      Unit{"ms", std::chrono::milliseconds(1)}, Unit{"s", std::chrono::seconds(1)},
      Unit{"m", std::chrono::minutes(1)}, Unit{"h", std::chrono::hours(1)}};
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  for (const Unit& unit : units) {
    if (digits == 0 || !same_word(text.substr(digits), unit.name)) continue;
    const auto most = static_cast<uint64_t>(kMaxDuration / unit.length);
    const auto count = parse_number(text.substr(0, digits), 0, most);
    if (!count) return make_unexpected(as_said(text) + " is longer than ten years");
    return unit.length * static_cast<int64_t>(*count);
  }
  return make_unexpected(as_said(text) + " is not a duration such as 500ms, 5s, 2m or 1h");
}

}  // namespace lockfs
