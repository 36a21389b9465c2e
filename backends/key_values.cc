// SPDX-License-Identifier: MIT
#include "backends/key_values.h"

#include <fmt/format.h>

#include <algorithm>

namespace lockfs {
namespace {

constexpr size_t kLongest = 64;  ///< Of a host or container; a note takes what is left.

}  // namespace

std::string unquoted_value(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ec == std::errc()) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string quoted_value(std::string_view value) {
  std::string out;
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > ' ' && byte < 0x7f && c != '%' && c != '=') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

KeyValues key_values(std::string_view words) {
  KeyValues out;
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    const std::string_view word = words.substr(0, end);
    const size_t equals = word.find('=');
    if (equals != std::string_view::npos) {
      out[std::string(word.substr(0, equals))] = unquoted_value(word.substr(equals + 1));
    }
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return out;
}

std::string value_of(const KeyValues& words, const char* key) {
  const auto found = words.find(key);
  return found != words.end() ? found->second : std::string();
}

std::string presence_words(const Presence& who) {
  return fmt::format("pid={} uid={} since={} more={} token={} host={} comm={} container={} note={}",
                     who.pid, who.uid, who.since, who.more, who.token,
                     quoted_value(who.host).substr(0, kLongest), quoted_value(who.comm),
                     quoted_value(who.container).substr(0, kLongest), quoted_value(who.note));
}

Presence presence_of(const KeyValues& words) {
  return {value_of(words, "host"),
          number_of<pid_t>(words, "pid"),
          value_of(words, "comm"),
          number_of<uid_t>(words, "uid"),
          value_of(words, "container"),
          number_of<int64_t>(words, "since"),
          value_of(words, "note"),
          number_of<uint32_t>(words, "more"),
          number_of<uint64_t>(words, "token")};
}

std::string pin_words(const Pin& pin) {
  return fmt::format("owner={} bits={} allocated={}", pin.uid, pin.mode, pin.allocated ? 1 : 0);
}

Pin pin_of(const KeyValues& words) {
  Pin pin;
  pin.uid = number_of<uid_t>(words, "owner");
  pin.mode = number_of<uint16_t>(words, "bits");
  pin.allocated = number_of<int>(words, "allocated") != 0;
  return pin;
}

uint64_t text_checksum(std::string_view text) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  return hash;
}

}  // namespace lockfs
