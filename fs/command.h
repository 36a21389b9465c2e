// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "core/lock.h"
#include "core/words.h"

namespace lockfs {

/// What a write to an open lock asks for.
struct Command {
  enum class Verb { kAcquire, kRelease, kRenew, kResume };
  Verb verb = Verb::kAcquire;
  Request request;              ///< Of kAcquire.
  std::optional<Duration> ttl;  ///< Of kRenew, if it names a new one.
  std::string key;              ///< Of kResume.
  int onlost = 0;               ///< Signal for the holder when the lock is lost; 0: none.
};

/// The longest command, in bytes.
inline constexpr size_t kMaxCommand = 4096;

/// Reads one mode string: `MODE [option ...]`, `UN`, `renew[=DUR]` or `resume KEY`; words in any
/// case, apart by blanks, with or without a newline at the end. The error says in words what is
/// wrong, with which word.
tl::expected<Command, std::string> parse_command(std::string_view text);

/// Words apart by blanks; "..." holds blanks, in it \" and \\ stand for " and \.
tl::expected<std::vector<std::string>, std::string> split_words(std::string_view text);

}  // namespace lockfs
