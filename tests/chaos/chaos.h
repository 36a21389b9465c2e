// SPDX-License-Identifier: MIT
#pragma once
#include <sys/mman.h>
#include <sys/types.h>

#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace lockfs::test {

/// Two ordinary users.
inline constexpr uid_t kAnn = 12345;
inline constexpr uid_t kBen = 12346;

/// The calling thread acts as this user, with no other groups, until this ends. Of the thread
/// alone: the kernel checks and lockfs sees its effective ids, as after setuid(2).
class As {
 public:
  explicit As(uid_t uid);
  ~As();
  As(const As&) = delete;
  As& operator=(const As&) = delete;
};

/// For a child process: this user for good. False if it could not.
bool become(uid_t uid);

/// A number from the environment, or `otherwise`.
uint64_t setting(const char* name, uint64_t otherwise);

/// CLOCK_MONOTONIC, in nanoseconds: the same clock in every process, on every core.
int64_t monotonic();

/// One T, all zero at first, that forked children share; its destructor does not run.
template <typename T>
class Shared {
 public:
  Shared()
      : memory_(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Shared() { munmap(memory_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T& operator*() const { return *static_cast<T*>(memory_); }
  T* operator->() const { return static_cast<T*>(memory_); }

 private:
  void* memory_;
};

/// Runs the lockfs under test with these words to its end: exit status, and all it wrote. One that
/// mounts and serves instead is ended after a minute.
std::pair<int, std::string> run_lockfs(const std::vector<std::string>& words);

}  // namespace lockfs::test
