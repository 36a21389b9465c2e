// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "core/lock_table.h"

namespace lockfs {

/// What stands for a lockspace where those beyond kCountedApart are counted together: no directory
/// can be called that. So there are never more than some ten thousand series.
inline constexpr std::string_view kOtherSpaces = "/others";

/// What `.lockfs/metrics` says, in Prometheus' text format (0.0.4). Names, labels and units stand
/// in its HELP lines.
std::string metrics_text(const LockTable& table, size_t open_descriptors);

}  // namespace lockfs
