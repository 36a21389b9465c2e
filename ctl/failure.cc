// SPDX-License-Identifier: MIT
#include "ctl/failure.h"

#include <cerrno>

namespace lockfs::ctl {

ExitCode exit_code_of(int error) {
  switch (error) {
    case EAGAIN:
    case ETIMEDOUT: return ExitCode::kNo;
    case EINVAL:
    case EOPNOTSUPP:
    case ENAMETOOLONG: return ExitCode::kUsage;
    case ENOENT:
    case ENOTDIR:
    case EISDIR: return ExitCode::kNoLock;
    case ENOTCONN:
    case ECONNABORTED:
    case ECONNREFUSED: return ExitCode::kUnavailable;
    case EDEADLK:
    case ENOLCK:
    case ENOSPC:
    case EBUSY:
    case EHOSTUNREACH: return ExitCode::kTryAgain;
    case EACCES:
    case EPERM: return ExitCode::kNotAllowed;
    default: return ExitCode::kSystem;
  }
}

}  // namespace lockfs::ctl
