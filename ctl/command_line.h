// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace lockfs::ctl {

/// A command line in two: what is lockctl's to read, and what is the command's that `run` starts.
struct CommandLine {
  std::vector<std::string> ours;
  std::vector<std::string> command;  ///< All behind run's NAME, a "--" in front of it taken away.
};

/// Cuts a command line, by the options that `app` knows. CLI11 must not see the command's words: it
/// takes "[a,b]" apart. Nor an option with an empty value, "--note=": it would take the next word
/// for the value; that one becomes the two words "--note" and "".
CommandLine cut(const CLI::App& app, int argc, const char* const* argv);

}  // namespace lockfs::ctl
