// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "core/lock_errc.h"

namespace lockfs::libpod {

/// podman's own locks, as one of its two lock managers (libpod/lock) keeps them: numbers that are
/// allocated to containers, pods and volumes, each an exclusive lock. Any thread may call; what may
/// wait says so.
class Locks {
 public:
  /// A lock that is held; it ends on the thread that made it.
  class Held {
   public:
    virtual ~Held() = default;
  };

  virtual ~Locks() = default;
  /// Ids are below it.
  virtual uint64_t capacity() = 0;
  virtual bool is_allocated(uint32_t id) = 0;
  virtual std::vector<uint32_t> allocated() = 0;
  /// The thread, or the process, that holds it: 0 when that is not known, nullopt when it is free.
  virtual std::optional<pid_t> holder(uint32_t id) = 0;
  /// kExists, kNotFound, kUnreachable. May wait for podman.
  virtual LockErrc allocate(uint32_t id) = 0;
  virtual LockErrc free(uint32_t id) = 0;
  /// Waits for the lock, unless `now`: kWouldBlock, kNotFound, kUnreachable.
  virtual tl::expected<std::unique_ptr<Held>, LockErrc> lock(uint32_t id, bool now) = 0;
  /// Whose podman it is.
  virtual uid_t owner() const = 0;
};

using MadeLocks = tl::expected<std::unique_ptr<Locks>, std::string>;
/// The segment of the manager "shm": /dev/shm/libpod_lock, or libpod_rootless_lock_UID.
MadeLocks open_segment(const std::string& path);
/// The directory of the manager "file": /run/libpod/locks, or that of a user's run-time directory.
MadeLocks open_directory(const std::string& path);

}  // namespace lockfs::libpod
