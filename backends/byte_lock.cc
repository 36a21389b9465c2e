// SPDX-License-Identifier: MIT
#include "backends/byte_lock.h"

#include <fcntl.h>

#include <cerrno>

namespace lockfs {
namespace {

int16_t type_of(ByteLock how) {
  switch (how) {
    case ByteLock::kNone: return F_UNLCK;
    case ByteLock::kRead: return F_RDLCK;
    case ByteLock::kWrite: return F_WRLCK;
  }
  return F_WRLCK;
}

struct flock lock_of(ByteLock how, int64_t first, int64_t last) {
  struct flock lock {};
  lock.l_type = type_of(how);
  lock.l_whence = SEEK_SET;
  lock.l_start = first;
  lock.l_len = last - first + 1;
  return lock;
}

}  // namespace

LockErrc set_bytes(int fd, ByteLock how, int64_t first, int64_t last) {
  struct flock lock = lock_of(how, first, last);
  while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) return LockErrc::kWouldBlock;
    if (errno != EINTR) return LockErrc::kUnreachable;
  }
  return LockErrc::kOk;
}

bool bytes_are_taken(int fd, ByteLock how, int64_t first, int64_t last) {
  struct flock lock = lock_of(how, first, last);
  return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

LockErrc wait_for_byte(int fd, int64_t byte) {
  struct flock lock = lock_of(ByteLock::kWrite, byte, byte);
  if (fcntl(fd, F_OFD_SETLKW, &lock) == 0) return LockErrc::kOk;
  return errno == EINTR ? LockErrc::kInterrupted : LockErrc::kUnreachable;
}

}  // namespace lockfs
