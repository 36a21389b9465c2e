// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>

namespace lockfs::shm {

/// Somebody may truncate a file that we have mapped; then the kernel sends SIGBUS to whoever
/// touches what is gone. For the mappings that are named here, such a page is replaced by one of
/// zeros, which is no valid Word anywhere: it reads as damage. At most kMostMappings at a time,
/// others are not guarded.
inline constexpr size_t kMostMappings = 64;
void guard_mapping(void* base, size_t size);
void forget_mapping(void* base);

}  // namespace lockfs::shm
