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

namespace lockfs {

/// What the config file says of one lockspace.
struct LockspaceOptions {
  std::string backend;  ///< URL; empty: the mount's source.
  std::optional<mode_t> mode;
  std::optional<uint64_t> capacity;
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
  uint64_t max_lockspaces = 1024;
  uint64_t idle_names = 10000;  ///< Free names whose statistics are kept.
  uint64_t capacity = 2048;     ///< Of numbered locks, in a lockspace that says nothing else.
  mode_t root_mode = 01777;
  bool foreground = false;
  bool check_config = false;
  bool version = false;
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

/// Adds what a config file's text says; `where` names it in errors. nullopt when all is well.
std::optional<std::string> parse_config(Options& options, std::string_view text,
                                        const std::string& where);

/// Sets one key to a value as `-o key=value` does; the error says what it takes.
std::optional<std::string> set_option(Options& options, std::string_view key,
                                      std::string_view value);
/// All keys with their present values.
std::vector<std::pair<std::string, std::string>> option_values(const Options& options);

}  // namespace lockfs
