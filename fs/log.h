// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>

#include "fs/options.h"

namespace lockfs {

/// Sends the log to stderr, at the level and in the format of the options, and libfuse's words
/// with it. Formats: "text"; "json", an object a line; "journald", lines with the priority that
/// systemd's journal reads from a service's stderr. One entry is one line whatever it names:
/// control characters are escaped.
void set_up_log(const Options& options);

/// For a daemon whose terminal goes away: from now on to syslog.
void log_to_syslog(const Options& options);

/// From now on; the levels of Options::log_level.
void set_log_level(const std::string& level);

/// `text` with control characters, quotes and backslashes escaped as in JSON.
std::string escaped(std::string_view text);

}  // namespace lockfs
