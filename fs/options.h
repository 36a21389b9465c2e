// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "core/timer_queue.h"
#include "usage/usage.h"

namespace lockfs {

/// What the config file says of one lockspace.
struct LockspaceOptions {
  std::string backend;  ///< URL; empty: the mount's source.
  std::optional<mode_t> mode;
  std::optional<uint64_t> capacity;
  bool operator==(const LockspaceOptions&) const = default;
};

/// All that can be set, from the command line, from `-o` and from the config file: a key has the
/// same name and the same values in each. What stands on the command line goes first.
struct Options {
  std::string source = "memory:";
  std::string mountpoint;
  std::string config;  ///< The file; empty: none.
  std::string log_level = "info";
  std::string log_format = "text";                ///< or "json", "journald"
  Duration poll = std::chrono::microseconds(40);  ///< Ask that long before sleeping; 0: do not.
  uint64_t max_opens_per_user = 65536;
  uint64_t max_waiters_per_user = 16384;
  uint64_t max_names_per_user = 65536;
  uint64_t max_lockspaces_per_user = 64;
  uint64_t max_lockspaces = 1024;
  uint64_t idle_names = 10000;  ///< Free names whose statistics are kept.
  uint64_t capacity = 2048;     ///< Of numbered locks, in a lockspace that says nothing else.
  mode_t root_mode = 01777;
  bool foreground = false;
  bool check_config = false;
  bool version = false;
  bool fake = false;   ///< mount -f: all but the mount.
  bool again = false;  ///< Read for a mount that serves: URLs are not looked at.
  std::vector<std::string> mount_options;  ///< For libfuse and the kernel.
  std::map<std::string, LockspaceOptions> lockspaces;
};

/// Reads the command line, and the config file it names. The error says what is wrong, where.
/// `help` comes back as an error with `is_help`.
struct OptionsError {
  std::string words;
  bool is_help = false;
};
tl::expected<Options, OptionsError> parse_options(int argc, const char* const* argv);
/// The same for a mount that serves, with the config file at that path, a regular one: URLs cannot
/// change any more and are not looked at. Touches nothing but that file: for any thread.
tl::expected<Options, OptionsError> parse_options_again(int argc, const char* const* argv,
                                                        const std::string& config);

/// Adds what a config file's text says. nullopt when all is well, else all that is wrong, in one
/// line, each with its line in the file; `where` names that.
std::optional<std::string> parse_config(Options& options, std::string_view text,
                                        const std::string& where);

/// Sets one key to a value as `-o key=value` does; the error says what it takes.
std::optional<std::string> set_option(Options& options, std::string_view key,
                                      std::string_view value);
/// All keys with their present values.
std::vector<std::pair<std::string, std::string>> option_values(const Options& options);
bool is_option_key(std::string_view name);
/// All keys with what they mean and their defaults, for the manual.
std::vector<UsageRow> option_rows();

/// "0770" and the like.
tl::expected<mode_t, std::string> parse_mode_bits(std::string_view value);

/// Takes over from `fresh`, for a mount that serves, what may change meanwhile: the level of the
/// log, limits, idle_names, capacity.
struct Changes {
  std::vector<std::string> taken;    ///< "capacity=5"
  std::vector<std::string> refused;  ///< What is another one but stays: "poll=0us", "lockspace.a".
};
Changes take_changes(Options& options, const Options& fresh);

}  // namespace lockfs
