// SPDX-License-Identifier: MIT
#include "core/lock_errc.h"

#include <cerrno>
#include <string>

namespace lockfs {
namespace {

struct Row {
  int number;
  const char* words;
};

Row row(LockErrc e) {
  switch (e) {
    case LockErrc::kOk: return {0, "granted"};
    case LockErrc::kWouldBlock:
      return {EAGAIN, "held by somebody else, and the request would not wait"};
    case LockErrc::kTimedOut: return {ETIMEDOUT, "still held when the timeout passed"};
    case LockErrc::kInterrupted: return {EINTR, "a signal ended the wait"};
    case LockErrc::kDeadlock: return {EDEADLK, "waiting would be a deadlock"};
    case LockErrc::kInvalid: return {EINVAL, "not a valid request"};
    case LockErrc::kBusy: return {EBUSY, "in use"};
    case LockErrc::kLost: return {ESTALE, "the lock was lost"};
    case LockErrc::kUnreachable: return {EHOSTUNREACH, "the backend is out of reach"};
    case LockErrc::kNotSupported: return {EOPNOTSUPP, "this backend cannot do that"};
    case LockErrc::kLimit: return {ENOLCK, "a limit is reached"};
    case LockErrc::kNotFound: return {ENOENT, "no such lock"};
    case LockErrc::kNotYours: return {EPERM, "not yours"};
    case LockErrc::kExists: return {EEXIST, "taken already"};
    case LockErrc::kExhausted: return {ENOSPC, "all numbered locks are taken"};
  }
  return {EIO, "unknown"};
}

class Category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "lock"; }
  std::string message(int value) const override { return row(static_cast<LockErrc>(value)).words; }
};

}  // namespace

const std::error_category& lock_category() {
  static const Category category;
  return category;
}

int to_errno(LockErrc e) { return row(e).number; }

}  // namespace lockfs
