// SPDX-License-Identifier: MIT
#pragma once
#include <charconv>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/lock_backend.h"

namespace lockfs {

/// Words such as "pid=17 comm=make%20all": how claims are described where other nodes read it.
/// Values may have any bytes; blanks, controls, '=' and '%' are written as %XX.
using KeyValues = std::map<std::string, std::string>;
KeyValues key_values(std::string_view words);
/// A value as it stands in such words.
std::string quoted_value(std::string_view value);
/// With each %XX as the byte that it stands for.
std::string unquoted_value(std::string_view text);
/// Empty when there is none.
std::string value_of(const KeyValues& words, const char* key);
/// 0 when there is none, or no number.
template <typename Number>
Number number_of(const KeyValues& words, const char* key) {
  Number value = 0;
  const auto found = words.find(key);
  if (found == words.end()) return value;
  std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  return value;
}

/// Who holds. What may be long comes last, so that a line of limited length can be cut.
std::string presence_words(const Presence& who);
Presence presence_of(const KeyValues& words);

/// A pin; its words go with those of a presence.
std::string pin_words(const Pin& pin);
Pin pin_of(const KeyValues& words);

/// Tells whole text from torn or overwritten text (64-bit FNV-1a).
uint64_t text_checksum(std::string_view text);

}  // namespace lockfs
