// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "core/event_loop.h"

namespace lockfs {

/// `lockfs serve elock://HOST:PORT`: answers elock's protocol until a signal ends it, in the
/// foreground. `watch_signals` makes signals end the loop. The exit status.
int serve_command(const std::vector<std::string>& words, int (*watch_signals)(EventLoop& loop));

}  // namespace lockfs
