// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_backend.h"

namespace lockfs::dlm {

/// What one mount says of one lock.
struct Told {
  std::string name;
  Mode held = Mode::kNL;
  Mode wanted = Mode::kNL;  ///< Above NL: it waits for that.
  Presence who;
  std::optional<Pin> pin;  ///< In kPins.
};

/// A message between the mounts of a lockspace, as text: one line of words, and one for each lock.
struct Message {
  enum class Kind {
    kAsk,     ///< Who has `name`? What is only kept, give up. An empty name: all that is held.
    kTell,    ///< The answer to `number` of the member `to_node`, `to_pid`; `last` ends it.
    kPin,     ///< Pin `name`; `fresh`: not if it has a pin.
    kUnpin,   ///< The end of a pin.
    kPins,    ///< All pins, for one who has just come.
    kFloor,   ///< Of counters, by their numbers: tokens of theirs may be as great as `who.token`.
    kPlease,  ///< Whoever knows the pins, tell me: who should have did not.
  };
  Kind kind = Kind::kAsk;
  uint64_t number = 0;
  uint32_t to_node = 0;
  uint32_t to_pid = 0;
  bool last = false;
  bool fresh = false;
  std::string name;
  Pin pin;
  std::vector<Told> locks;
};

std::string to_text(const Message& message);
/// nullopt for what is none: of another version, or not of us.
std::optional<Message> from_text(std::string_view text);

}  // namespace lockfs::dlm
