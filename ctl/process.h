// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace lockfs::ctl {

/// The whole of a file; nullopt and errno when it cannot be read.
std::optional<std::string> read_file(const std::string& path);
/// The same of an open one, whose position stays where it is.
std::optional<std::string> read_file(int fd);

/// "/proc/PID/FILE".
std::string proc(pid_t pid, const std::string& file);

/// All processes that /proc shows.
std::vector<pid_t> processes();

/// A process's name, as the kernel has it; empty when it is gone or out of sight.
std::string comm_of(pid_t pid);
/// Its command line with spaces between the words, or its name in brackets as ps(1) has it.
std::string command_of(pid_t pid);
/// Its parent; 0 when it is gone or out of sight.
pid_t parent_of(pid_t pid);
/// Its children, their children, and so on; none where /proc is that of another pid namespace.
std::vector<pid_t> descendants_of(pid_t ancestor);
/// Its user.
std::optional<uid_t> user_of(pid_t pid);

/// The number that a user has outside of this user namespace, where the mount counts, by the text
/// of /proc/self/uid_map; as it is if that does not map it.
uid_t uid_outside(const std::string& uid_map, uid_t uid);

/// A user's name, or the number where there is no name.
std::string user_name(uid_t uid);

}  // namespace lockfs::ctl
