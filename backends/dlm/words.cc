// SPDX-License-Identifier: MIT
#include "backends/dlm/words.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "backends/key_values.h"

namespace lockfs::dlm {
namespace {

constexpr std::array<std::string_view, 7> kKinds = {"ask",  "tell",  "pin",   "unpin",
                                                    "pins", "floor", "please"};

Mode mode_of(const KeyValues& words, const char* key) {
  return parse_mode(value_of(words, key)).value_or(Mode::kNL);
}

std::string line_of(const Told& told) {
  std::string out = "name=" + quoted_value(told.name);
  if (told.pin) return out + " " + pin_words(*told.pin);
  return out + fmt::format(" held={} wanted={} ", mode_name(told.held), mode_name(told.wanted)) +
         presence_words(told.who);
}

}  // namespace

std::string to_text(const Message& message) {
  std::string out =
      fmt::format("lockfs=1 kind={} number={} to={} pid={} last={} fresh={} {} name={}",
                  kKinds.at(static_cast<size_t>(message.kind)), message.number, message.to_node,
                  message.to_pid, message.last ? 1 : 0, message.fresh ? 1 : 0,
                  pin_words(message.pin), quoted_value(message.name));
  for (const Told& told : message.locks) out += "\n" + line_of(told);
  return out;
}

std::optional<Message> from_text(std::string_view text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const KeyValues head = key_values(text.substr(0, end));
  const auto kind = std::find(kKinds.begin(), kKinds.end(), value_of(head, "kind"));
  if (value_of(head, "lockfs") != "1" || kind == kKinds.end()) return std::nullopt;
  Message out;
  out.kind = static_cast<Message::Kind>(kind - kKinds.begin());
  out.number = number_of<uint64_t>(head, "number");
  out.to_node = number_of<uint32_t>(head, "to");
  out.to_pid = number_of<uint32_t>(head, "pid");
  out.last = number_of<int>(head, "last") != 0;
  out.fresh = number_of<int>(head, "fresh") != 0;
  out.name = value_of(head, "name");
  out.pin = pin_of(head);
  text.remove_prefix(std::min(end + 1, text.size()));
  while (!text.empty()) {
    const size_t stop = std::min(text.find('\n'), text.size());
    const KeyValues words = key_values(text.substr(0, stop));
    Told told{value_of(words, "name"), mode_of(words, "held"), mode_of(words, "wanted"),
              presence_of(words), std::nullopt};
    if (out.kind == Message::Kind::kPins) told.pin = pin_of(words);
    out.locks.push_back(std::move(told));
    text.remove_prefix(std::min(stop + 1, text.size()));
  }
  return out;
}

}  // namespace lockfs::dlm
