// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "system/open_file.h"

namespace lockfs::ctl {

/// Asks the mount something in a process of its own. Whoever asks a daemon that hangs may hang
/// with it beyond the reach of SIGKILL: then it is that process alone.
class Question {
 public:
  /// `ask` runs in the other process; its Failure arrives here as it is.
  explicit Question(const std::function<std::string()>& ask);
  /// Gives up what is not answered yet, and waits for nothing.
  ~Question();
  Question(const Question&) = delete;
  Question& operator=(const Question&) = delete;

  /// Readable when answer() has something to do.
  int fd() const { return answers_.get(); }
  /// The whole answer, once it is there; not to be called again then. Throws the Failure.
  std::optional<std::string> answer();

 private:
  OpenFile answers_;
  pid_t child_ = -1;
  std::string text_;
};

}  // namespace lockfs::ctl
