// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "usage/usage.h"

namespace lockfs {

/// An option or a positional, as its parser has it.
struct UsageOption {
  std::vector<std::string> names;  ///< "-f", "--foreground"; of a positional its one name.
  std::string value;               ///< What stands behind it, as "FILE"; empty: nothing.
  std::string bounds;              ///< Of that value, as "0 - 255"; empty: any.
  std::string help;
  std::string group;
  std::vector<std::string> words;  ///< One of which is the value, if there are any.
  bool files = false;              ///< The value is a path.
  bool needed = false;
  bool many = false;  ///< Of a positional: there may be several.
};

/// A command of a program, or the program itself.
struct UsageCommand {
  std::string path;  ///< The words that lead to it, "pin add"; empty: the program.
  std::string name;  ///< The last of them.
  std::string help;
  std::string footer;
  std::vector<UsageOption> options;
  std::vector<UsageOption> positionals;
  std::vector<UsageCommand> commands;
};

UsageCommand command_of(const Usage& usage);

/// A command and all below it, the command first.
std::vector<const UsageCommand*> all_of(const UsageCommand& command);

}  // namespace lockfs
