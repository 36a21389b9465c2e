// SPDX-License-Identifier: MIT
#pragma once
#include <nlohmann/json.hpp>

namespace lockfs::ctl {

/// Prints JSON for programs. All but ASCII is escaped: it may come to a terminal all the same.
void print_json(const nlohmann::json& value);

/// Failure if what was printed has not all reached the standard output.
void finish_output();

}  // namespace lockfs::ctl
