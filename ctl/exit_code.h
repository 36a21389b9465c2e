// SPDX-License-Identifier: MIT
#pragma once

namespace lockfs::ctl {

/// How lockctl ends. `run` ends with what its command ends with, 128 + N if signal N ended it, and
/// with one of these when there was no such end. Those from 64 on are flock(1)'s, of sysexits.h.
enum class ExitCode : int {
  kOk = 0,
  kNo = 1,            ///< The answer is no: not acquired in time (`run -E` sets another number),
                      ///< not held, not pinned, not allocated, already taken, not confirmed.
  kUsage = 64,        ///< An option or a name is wrong.
  kNoLock = 66,       ///< No such lockspace, or the lock's file cannot be opened.
  kUnavailable = 69,  ///< No mount, or it does not answer; `run`: the command cannot be started.
  kSystem = 71,       ///< The system refused something: no memory, no process, no descriptor.
  kTryAgain = 75,     ///< A deadlock, a limit, or a backend out of reach.
  kNotAllowed = 77,   ///< For root, or for the owner of the lock or lockspace.
  kLost = 79,         ///< `run`: the lock was lost, and the command was ended because of that.
};

}  // namespace lockfs::ctl
