// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "fs/options.h"
#include "usage/usage.h"

namespace lockfs {

/// Adds what the file `options.config` says: all that is wrong with it, with the lines.
std::optional<std::string> read_config_file(Options& options);

/// The keys of a [lockspace.NAME] table, for the manual.
std::vector<UsageRow> lockspace_rows();

/// What is printed may quote anything: no control character reaches the terminal.
std::string printable(std::string words);

}  // namespace lockfs
