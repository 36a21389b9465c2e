// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "ctl/exit_code.h"

namespace lockfs::ctl {

struct ReadyOptions {
  double wait = 30;  ///< Seconds.
};

/// `lockctl ready`: waits until there is a mount and it answers. kUnavailable if it does not in
/// time. `wanted` is of --mount.
ExitCode wait_until_ready(const std::string& wanted, const ReadyOptions& options);

}  // namespace lockfs::ctl
