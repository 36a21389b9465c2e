// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <system_error>

namespace lockfs {

/// How a request on a lock can end. The one place that maps them to errno is to_errno().
enum class LockErrc {
  kOk = 0,
  kWouldBlock,    ///< Not at once, and the caller would not wait.
  kTimedOut,      ///< The caller's own timeout passed.
  kInterrupted,   ///< A signal ended the wait.
  kDeadlock,      ///< Granting can never happen: the caller waits for itself, over others.
  kInvalid,       ///< A request that makes no sense here.
  kBusy,          ///< In use.
  kLost,          ///< The owner's lock was taken from it (ttl, break, server).
  kUnreachable,   ///< The backend is out of reach.
  kNotSupported,  ///< The backend cannot do this mode or option.
  kLimit,         ///< A limit of this mount or user is reached.
  kNotFound,      ///< No such lock, owner or key.
  kNotYours,      ///< Somebody else's.
  kExists,        ///< Taken already.
  kExhausted,     ///< Numbered locks are used up.
};

inline constexpr size_t kLockErrcCount = static_cast<size_t>(LockErrc::kExhausted) + 1;

const std::error_category& lock_category();
inline std::error_code make_error_code(LockErrc e) {
  return {static_cast<int>(e), lock_category()};
}

/// The errno that a system call reports for it; 0 for kOk.
int to_errno(LockErrc e);

}  // namespace lockfs

template <>
struct std::is_error_code_enum<lockfs::LockErrc> : std::true_type {};
