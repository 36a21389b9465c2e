// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>

#include "ctl/exit_code.h"
#include "ctl/mount_point.h"

namespace lockfs::ctl {

struct BreakOptions {
  std::string name;
  std::string why;
  bool yes = false;  ///< Do not ask.
};

struct PinOptions {
  std::string name;
};

struct NumberOptions {
  std::optional<std::string> id;  ///< `alloc`: none for the lowest that is free.
  std::string lockspace = "default";
};

/// Gives a lockspace's .ctl one command: its answer without the line's end. Failure with the
/// mount's words if it is refused; `what` stands before them.
std::string command(const MountPoint& mount, const std::string& lockspace, const std::string& text,
                    const std::string& what);

/// `lockctl break`: takes a lock from all who hold it. Asks on a terminal first, and breaks
/// nothing if somebody else has come to hold it meanwhile.
ExitCode break_lock(const MountPoint& mount, const BreakOptions& options);
/// `lockctl pin`, `lockctl unpin`: the name stays, or not, while nobody holds it.
ExitCode pin(const MountPoint& mount, const PinOptions& options);
ExitCode unpin(const MountPoint& mount, const PinOptions& options);
/// `lockctl alloc`: prints the number. `lockctl free`.
ExitCode allocate(const MountPoint& mount, const NumberOptions& options);
ExitCode free_number(const MountPoint& mount, const NumberOptions& options);

}  // namespace lockfs::ctl
