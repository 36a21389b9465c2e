// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lockfs {

/// A line of a manual that is no option: a key of a config file, a URL.
struct UsageRow {
  std::string name;
  std::string help;
};

/// How a program is used: its options and commands, which stand in its parser alone, and what the
/// parser does not know.
struct Usage {
  const CLI::App& app;
  /// More parts of the manual, by name.
  std::map<std::string, std::vector<UsageRow>> parts = {};
  /// What may stand behind an option ("-o"), or for a positional ("places").
  std::map<std::string, std::vector<std::string>> words = {};
};

/// What a program answers, before it parses anything, to these hidden options if they are all that
/// it was called with; nullopt to anything else.
///
///     --print-manual             the app's options and commands, for a manual, in reStructuredText
///     --print-manual PART        a part of `usage.parts`
///     --print-completion SHELL   for bash, zsh or fish
std::optional<std::string> printed_usage(const Usage& usage, int argc, const char* const* argv);

/// The parts of what it answers. Options of the group "" are left out, as in the help. A value's
/// type says what it is, and behind a colon, as CLI11's checks have it, what it may be: a shell
/// completes {one,of,these}, FILE and DIR.
std::string manual_of(const CLI::App& app);
std::string manual_of(const std::vector<UsageRow>& rows);
std::string bash_completion(const Usage& usage);
std::string zsh_completion(const Usage& usage);
std::string fish_completion(const Usage& usage);

}  // namespace lockfs
