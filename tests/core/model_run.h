// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>

#include "tests/core/table_model.h"

namespace lockfs::model {

/// What went on in a run of random operations on the model and the real table side by side.
struct Outcome {
  std::string difference;  ///< Empty: none. Else what differed, with the last operations.
  uint64_t operations = 0;
  uint64_t waits = 0;  ///< So that a test sees that the run has met what it is about.
  uint64_t deadlocks = 0;
  uint64_t losses = 0;
  uint64_t restarts = 0;
  uint64_t resumed = 0;
  uint64_t undone = 0;
};

/// Runs up to so many operations, and stops at the first difference.
Outcome run_beside_model(uint64_t seed, uint64_t operations, const Rules& rules = {});

}  // namespace lockfs::model
