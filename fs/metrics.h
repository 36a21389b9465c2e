// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "core/lock_table.h"

namespace lockfs {

/// Lockspaces that have series of their own, the oldest; the others are counted together, as
/// lockspace="(others)", so that there are never more than some ten thousand series.
inline constexpr size_t kMetricSpaces = 100;

/// What `.lockfs/metrics` says, in Prometheus' text format (0.0.4). Names, labels and units stand
/// in its HELP lines.
std::string metrics_text(const LockTable& table, size_t open_descriptors);

}  // namespace lockfs
