// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "ctl/exit_code.h"
#include "ctl/holders.h"
#include "ctl/picture.h"

namespace lockfs::ctl {

struct ShowOptions {
  std::string name;
  bool json = false;
};

/// What somebody who wants the lock can do next, in whole sentences.
std::string advice(const Picture& picture, const Descriptors& descriptors);

/// `lockctl show`: all about one lock. kNo when nobody holds it.
ExitCode show_lock(const MountPoint& mount, const ShowOptions& options);

}  // namespace lockfs::ctl
