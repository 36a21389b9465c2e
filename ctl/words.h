// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <string>
#include <string_view>

namespace lockfs::ctl {

/// What others wrote, as a terminal may have it: control characters, bytes that are not UTF-8 and
/// marks that turn the direction of text become escapes as in "\x1b" and "\u202e".
std::string printable(std::string_view text);

/// How many columns of a terminal it takes; `text` is printable.
size_t columns_of(std::string_view text);
/// The longest beginning that takes at most `columns`.
std::string cut(std::string_view text, size_t columns);

/// "0.5 s", "12 s", "3 min 5 s", "2 h 3 min", "4 d 2 h".
std::string duration_in_words(double seconds);

/// A time of the mount, "2026-11-26T01:15:27.123Z", in the local zone: "01:15:27" if it is of
/// today, else with its date. As it is, but printable, if it is no such time.
std::string time_in_words(const std::string& utc);

/// "pid 4711 (sleep)"; "pid 4711" if the command is not known; "a process out of sight" for the pid
/// 0, which the mount gives to those of a pid namespace that it does not see.
std::string process_in_words(pid_t pid, const std::string& comm);

/// "s" unless it is one.
inline const char* plural(size_t count) { return count == 1 ? "" : "s"; }

/// Between double quotes, as the mount reads them in commands and mode strings.
std::string in_quotes(std::string_view word);

/// Colours, where they are wanted.
class Style {
 public:
  explicit Style(bool colours) : colours_(colours) {}
  /// For output to this descriptor: colours on a terminal, unless NO_COLOR is set or it is dumb.
  static Style of(int fd);

  std::string heading(const std::string& text) const { return with("1", text); }
  std::string bad(const std::string& text) const { return with("1;31", text); }
  std::string good(const std::string& text) const { return with("32", text); }
  std::string dim(const std::string& text) const { return with("2", text); }

 private:
  std::string with(const char* code, const std::string& text) const;
  bool colours_;
};

}  // namespace lockfs::ctl
