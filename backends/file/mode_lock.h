// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "backends/byte_lock.h"
#include "core/lock_errc.h"
#include "core/mode.h"

namespace lockfs {

/// Bytes of a lock's file that are locked and never written: they lie far behind its text.
inline constexpr int64_t kLockedBytes = int64_t{1} << 40;
inline constexpr int64_t kModeByteEx = kLockedBytes;         ///< EX writes it, all others read it.
inline constexpr int64_t kModeBytePw = kLockedBytes + 1;     ///< PW writes it, CW and PR read it.
inline constexpr int64_t kTextByte = kLockedBytes + 2;       ///< Written by who changes the text.
inline constexpr int64_t kSlotBytes = kLockedBytes + 65536;  ///< One each for the text's slots.
/// Each CW writes one of these of its own, PR reads them all.
inline constexpr int64_t kModeBytesCw = kLockedBytes + (int64_t{1} << 32);
inline constexpr int64_t kModeBytesCwEnd = kModeBytesCw + (int64_t{1} << 32);

/// The six modes as open-file-description locks of the kernel on bytes of one file. Two descriptors
/// of one file exclude each other exactly as the modes do, in whatever process or (over NFS) on
/// whatever host they are, and the kernel frees them when a process dies.
///
///          EX byte   PW byte   CW bytes
///     CR   read
///     CW   read      read      write one of its own
///     PR   read      read      read all
///     PW   read      write
///     EX   write
///
/// Bytes are taken one after the other, what is stronger first, and given back when one cannot be
/// had. What is held meanwhile excludes nobody who could have had the lock: it is part of what the
/// mode would exclude, and who stands against the rest stands against those too.
class ModeLock {
 public:
  /// `fd` is open for reading and writing, of a description of its own, and outlives this.
  explicit ModeLock(int fd) : fd_(fd) {}

  /// From the mode held to another one, at once or not at all (kWouldBlock, kUnreachable); the old
  /// one is kept then.
  LockErrc convert(Mode to);
  Mode mode() const { return mode_; }

  /// The strongest mode that any other description holds on the file.
  static Mode strongest_of_others(int fd);

 private:
  enum class CwBytes : uint8_t { kNone, kAll, kOwn };
  struct Bytes {
    ByteLock ex;
    ByteLock pw;
    CwBytes cw;
  };
  static Bytes bytes_of(Mode mode);
  LockErrc take_cw(CwBytes how);
  LockErrc take_own_cw();
  void leave_cw(CwBytes left);

  int fd_;
  Mode mode_ = Mode::kNL;
  int64_t own_ = 0;  ///< Our byte of the CW bytes; 0: none.
};

}  // namespace lockfs
