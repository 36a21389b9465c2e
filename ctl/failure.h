// SPDX-License-Identifier: MIT
#pragma once
#include <stdexcept>
#include <string>

#include "ctl/exit_code.h"

namespace lockfs::ctl {

/// Ends the command: main() prints the words behind "lockctl: " and exits with the code. The words
/// name the lock, its holder where there is one, and the next thing to try.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string& words) : std::runtime_error(words), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// What an errno of the mount means for who called lockctl.
ExitCode exit_code_of(int error);

}  // namespace lockfs::ctl
