// SPDX-License-Identifier: MIT
#include "backends/memory.h"

#include <chrono>

namespace lockfs {

MemoryBackend::MemoryBackend() {
  traits_.name = "memory";
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  next_token_ =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

void MemoryBackend::acquire(ClaimId claim, std::string_view /*lockspace*/,
                            std::string_view /*name*/, Mode mode, bool /*now*/) {
  const uint64_t token = next_token_++;
  events_->granted(claim, mode, {token, token + 1});
}

}  // namespace lockfs
