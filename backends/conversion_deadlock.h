// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "core/mode.h"

namespace lockfs {

/// A claim that holds one mode and waits for another.
struct Conversion {
  Mode held = Mode::kNL;
  Mode wanted = Mode::kNL;
};

/// Of the conversions of one lock: does one that `self` waits for wait for `self`, in the end?
/// Then neither can ever be granted.
inline bool conversions_deadlock(const Conversion& self, const std::vector<Conversion>& others) {
  std::vector<Mode> open = {self.wanted};
  std::vector<bool> seen(others.size());
  while (!open.empty()) {
    const Mode wanted = open.back();
    open.pop_back();
    for (size_t i = 0; i < others.size(); ++i) {
      if (seen[i] || compatible(wanted, others[i].held)) continue;
      if (!compatible(others[i].wanted, self.held)) return true;
      seen[i] = true;
      open.push_back(others[i].wanted);
    }
  }
  return false;
}

}  // namespace lockfs
