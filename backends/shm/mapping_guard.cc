// SPDX-License-Identifier: MIT
#include "backends/shm/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lockfs::shm {
namespace {

struct Guarded {
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;
};
std::array<Guarded, kMostMappings> guarded;
constexpr uintptr_t kPage = 4096;

// Only what a signal handler may do.
void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Guarded& mapping : guarded) {
    if (at < mapping.begin || at >= mapping.end) continue;
    void* page = static_cast<std::byte*>(info->si_addr) - at % kPage;
    constexpr int kFlags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    if (mmap(page, kPage, PROT_READ | PROT_WRITE, kFlags, -1, 0) == page) return;
  }
  signal(SIGBUS, SIG_DFL);  // Not ours: it comes again, and ends us.
}

}  // namespace

void guard_mapping(void* base, size_t size) {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  if (!installed) return;
  const auto begin = reinterpret_cast<uintptr_t>(base);
  for (Guarded& mapping : guarded) {
    uintptr_t none = 0;
    if (!mapping.begin.compare_exchange_strong(none, begin)) continue;
    mapping.end = begin + size;
    return;
  }
}

void forget_mapping(void* base) {
  for (Guarded& mapping : guarded) {
    if (mapping.begin != reinterpret_cast<uintptr_t>(base)) continue;
    mapping.end = 0;
    mapping.begin = 0;
  }
}

}  // namespace lockfs::shm
