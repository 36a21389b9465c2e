// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "fs/options.h"

namespace lockfs {

/// The app that reads a command line, and the words it found, as they stand. It does not move.
struct CommandLine {
  enum class Caller { kUser, kMount };  ///< mount(8) has letters of its own: mount.lockfs -f fakes.

  explicit CommandLine(Caller caller);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  CLI::App app;
  Options options;
  std::string source;  ///< The mountpoint, if it stands alone.
  std::string mountpoint;
  std::vector<std::string> more;   ///< Words too many.
  std::vector<std::string> lists;  ///< Of -o.
};

/// kMount for a program called as mount.lockfs or mount.fuse.lockfs.
CommandLine::Caller caller_of(std::string_view program);

/// What the hidden options of usage/usage.h print, if they are asked for.
std::optional<std::string> printed_usage(int argc, const char* const* argv);

}  // namespace lockfs
