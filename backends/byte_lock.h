// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "core/lock_errc.h"

namespace lockfs {

/// Open-file-description locks of the kernel on bytes of a file: they end with the description,
/// however its process ends, whatever the file's bytes say.
enum class ByteLock : uint8_t { kNone, kRead, kWrite };

/// Sets an open-file-description lock on [first, last], if it can be had at once: kOk, kWouldBlock,
/// or kUnreachable when the filesystem failed.
LockErrc set_bytes(int fd, ByteLock how, int64_t first, int64_t last);
/// Would `how` on these bytes have to wait for another description? True if it cannot be told.
bool bytes_are_taken(int fd, ByteLock how, int64_t first, int64_t last);
/// The same for one byte, waiting for it: kInterrupted when a signal ends the wait.
LockErrc wait_for_byte(int fd, int64_t byte);

}  // namespace lockfs
