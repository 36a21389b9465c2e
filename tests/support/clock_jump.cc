// SPDX-License-Identifier: MIT
// Preloaded into a server: its wall clock is off by the seconds (an int64_t) in the file that
// LOCKFS_CLOCK_FILE names, from one reading to the next. By system calls alone, for it is called
// before much else is there.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace {

int64_t offset() {
  static const volatile int64_t* shared = nullptr;
  if (shared == nullptr) {
    const char* name = getenv("LOCKFS_CLOCK_FILE");
    if (name == nullptr) return 0;
    const long fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    const long at = syscall(SYS_mmap, nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at < 0) return 0;
    shared = reinterpret_cast<const volatile int64_t*>(at);  // NOLINT(performance-no-int-to-ptr)
  }
  return *shared;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) {
  const long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    time->tv_sec += offset();
  }
  return static_cast<int>(result);
}

int gettimeofday(timeval* time, void* /*zone*/) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* out) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
}
