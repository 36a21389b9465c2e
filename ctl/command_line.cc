// SPDX-License-Identifier: MIT
#include "ctl/command_line.h"

#include <string_view>

namespace lockfs::ctl {
namespace {

const CLI::App* subcommand(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

// An option of the app or of its command that has a value.
bool has_value(const CLI::App& app, const CLI::App& command, const std::string& name) {
  const CLI::Option* option = command.get_option_no_throw(name);
  if (option == nullptr) option = app.get_option_no_throw(name);
  return option != nullptr && option->get_items_expected_max() > 0;
}

// Whether the word behind this one is its value.
bool takes_next(const CLI::App& app, const CLI::App& command, const std::string& word) {
  if (word.starts_with("--")) return has_value(app, command, word);  // "--wait=5" is no name.
  for (size_t i = 1; i < word.size(); ++i) {  // Of "-nw5" the first with a value has the rest.
    if (has_value(app, command, std::string("-") + word[i])) return i + 1 == word.size();
  }
  return false;
}

}  // namespace

CommandLine cut(const CLI::App& app, int argc, const char* const* argv) {
  CommandLine line;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const CLI::App* command = &app;
  bool options_end = false;
  bool named = false;
  size_t i = 0;
  for (; i < words.size() && !named; ++i) {
    std::string word = words[i];
    if (options_end || word.size() < 2 || word[0] != '-') {
      named = command->get_name() == "run";
      const CLI::App* chosen = command == &app ? subcommand(app, word) : nullptr;
      if (chosen != nullptr) command = chosen;
    } else if (word == "--") {
      options_end = true;
    } else if (word.ends_with('=') && has_value(app, *command, word.substr(0, word.size() - 1))) {
      word.pop_back();
      line.ours.push_back(word);
      word.clear();
    } else if (takes_next(app, *command, word) && i + 1 < words.size()) {
      line.ours.push_back(word);
      word = words[++i];
    }
    line.ours.push_back(word);
  }
  if (i < words.size() && words[i] == "--") ++i;
  line.command.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
  return line;
}

}  // namespace lockfs::ctl
