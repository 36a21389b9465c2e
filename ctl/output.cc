// SPDX-License-Identifier: MIT
#include "ctl/output.h"

#include <iostream>

#include "ctl/failure.h"

namespace lockfs::ctl {

using nlohmann::json;

void print_json(const json& value) {
  std::cout << value.dump(2, ' ', true, json::error_handler_t::replace) << "\n";
}

void finish_output() {
  std::cout.flush();
  if (std::cout) return;
  throw Failure(ExitCode::kSystem, "not all could be written to the standard output; is it full?");
}

}  // namespace lockfs::ctl
