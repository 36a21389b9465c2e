// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>
#include <termios.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/ctl/program.h"

namespace lockfs::test {

/// A program in a pseudo-terminal, as a person has it: keys in, a screen out. It and what it
/// started are killed at the end.
class Terminal {
 public:
  Terminal(const Words& words, std::map<std::string, std::string> environment, int rows = 24,
           int columns = 140);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void press(const std::string& keys) const;
  void resize(int rows, int columns);
  void signal(int number) const;
  /// The line to the person is cut.
  void hang_up();
  /// All that it has written so far.
  const std::string& written();
  /// The lines of the screen, for TERM=vt52; without spaces at their ends.
  std::vector<std::string> screen();
  /// The first line with these words; empty if there is none.
  std::string line_with(const std::string& words);
  bool eventually_shows(const std::string& words);
  bool eventually_writes(const std::string& words);
  /// The terminal's modes.
  termios modes() const;
  /// Waits for its end, and reads all it writes until then.
  int wait();

 private:
  int master_ = -1;
  pid_t pid_ = -1;
  bool reaped_ = false;
  int rows_;
  int columns_;
  std::string written_;
};

}  // namespace lockfs::test
