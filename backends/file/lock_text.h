// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_backend.h"

namespace lockfs {

/// What one claim's slot in a lock's file says.
struct SlotText {
  std::string node;        ///< Which mount's.
  Mode held = Mode::kNL;   ///< At the time of writing.
  Mode wants = Mode::kNL;  ///< Waits for it; NL: waits for nothing.
  uint64_t token = 0;      ///< The first that came with the claim; then `who` may have a later one.
  Presence who;
};

/// The text of a lock's file: lines of a fixed length, each with a checksum, so that a writer that
/// dies in the midst of one spoils that line alone. Token and pin have two lines each, written in
/// turn: the one that was not being written is whole.
///
///     lockfs 1                       a line of 128 bytes, as the next four
///     token 1795706727697240 ...     twice
///     pin 1000 0640 allocated ...    twice, or "pin none"
///     claim node=... held=PR ...     512 bytes for each slot
///
/// What cannot be written says so, with errno. No member function waits. Whoever changes the pin,
/// or the token without holding PW or EX, has kTextByte of mode_lock.h locked.
class LockText {
 public:
  static constexpr size_t kLine = 128;
  static constexpr size_t kSlotLine = 512;
  static constexpr size_t kSlots = 4096;
  static constexpr uint64_t kTokens = 16;  ///< So many hand-overs inside one mount ask for no more.

  explicit LockText(int fd) : fd_(fd) {}

  /// Takes the next kTokens tokens: more than all before, and not less than the microseconds since
  /// 1970, so that they grow though the file was lost. None when that cannot be written.
  TokenBlock next_tokens();
  std::optional<Pin> pin() const;
  bool write_pin(const std::optional<Pin>& pin);
  bool write_slot(size_t slot, const SlotText& text);
  bool clear_slot(size_t slot);
  /// All slots with a whole line, by their number; whether anybody is behind one, its lock tells.
  std::vector<std::pair<size_t, SlotText>> slots() const;
  /// Writes what is there already: others who watch the file look again.
  void touch();

 private:
  struct Numbered {
    std::string words;
    uint64_t sequence = 0;
    int line = 0;
  };
  std::optional<Numbered> newest(int first_line) const;
  bool write_newer(int first_line, const std::string& words);

  int fd_;
};

/// A line of so many bytes: the words, blanks, the checksum, a newline. Words that are too long are
/// cut.
std::string text_line(std::string_view words, size_t length);
/// The words of a line; nullopt when it is not whole.
std::optional<std::string_view> line_words(std::string_view line);

}  // namespace lockfs
