// SPDX-License-Identifier: MIT
#pragma once
#include <CLI/CLI.hpp>
#include <memory>

#include "core/event_loop.h"

namespace lockfs {

/// `lockfs serve elock://HOST:PORT`: answers elock's protocol until a signal ends it, in the
/// foreground. `argv` begins with the word serve. `watch_signals` makes signals end the loop. The
/// exit status.
int serve_command(int argc, const char* const* argv, int (*watch_signals)(EventLoop& loop));

/// Its options, for the help and the manual.
std::shared_ptr<CLI::App> serve_app();

}  // namespace lockfs
