// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <string>

#include "ctl/exit_code.h"
#include "ctl/mount_point.h"
#include "ctl/words.h"

namespace lockfs::ctl {

struct EventsOptions {
  bool json = false;
};

/// One line of `.lockfs/events` as people read it, without a line's end. Keys may be absent; an
/// event that is not known is shown by its name, and what is no JSON as it is.
std::string event_in_words(const std::string& line, const Style& style);

/// The same line for programs, in ASCII; what is no JSON printable.
std::string event_as_json(const std::string& line);

/// Reads lines until the end of the file and hands on each, without its end, as it comes: 0, or the
/// errno that ended it.
int follow(int fd, const std::function<void(const std::string&)>& line);

/// `lockctl events`: prints what happens, as it happens, until a signal ends it. Failure when
/// the mount ends.
ExitCode show_events(const MountPoint& mount, const EventsOptions& options);

}  // namespace lockfs::ctl
