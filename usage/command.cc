// SPDX-License-Identifier: MIT
#include "usage/command.h"

#include <algorithm>
#include <sstream>

namespace lockfs {
namespace {

using Words = std::map<std::string, std::vector<std::string>>;

// The words of a type such as "TEXT:{one,two}".
std::vector<std::string> words_in(const std::string& type) {
  std::vector<std::string> words;
  const size_t open = type.find('{');
  const size_t close = type.find('}');
  if (open == std::string::npos || close == std::string::npos || close < open) return words;
  std::stringstream list(type.substr(open + 1, close - open - 1));
  for (std::string word; std::getline(list, word, ',');) words.push_back(word);
  return words;
}

UsageOption option_of(const CLI::Option& option, const Words& words) {
  UsageOption out;
  for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  if (!option.nonpositional()) out.names = {option.get_name(true)};
  if (option.get_type_size_max() != 0) out.value = option.get_type_name();
  out.help = option.get_description();
  out.group = option.get_group();
  out.words = words_in(out.value);
  for (const std::string& name : out.names) {
    const auto known = words.find(name);
    if (known != words.end()) out.words = known->second;
  }
  const auto says = [&](const char* what) { return out.value.find(what) != std::string::npos; };
  out.files = says("FILE") || says("DIR") || says("PATH");
  return out;
}

UsageCommand command_of(const CLI::App& app, const std::string& path, const Words& words) {
  UsageCommand out;
  out.path = path;
  out.name = app.get_name();
  out.help = app.get_description();
  out.footer = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    auto& list = option->nonpositional() ? out.options : out.positionals;
    list.push_back(option_of(*option, words));
  }
  const auto shown = [](const CLI::App* each) { return !each->get_group().empty(); };
  for (const CLI::App* each : app.get_subcommands(shown)) {
    const std::string below = path + (path.empty() ? "" : " ") + each->get_name();
    out.commands.push_back(command_of(*each, below, words));
  }
  return out;
}

}  // namespace

UsageCommand command_of(const Usage& usage) { return command_of(usage.app, "", usage.words); }

std::vector<const UsageCommand*> all_of(const UsageCommand& command) {
  std::vector<const UsageCommand*> out = {&command};
  for (const UsageCommand& each : command.commands) {
    const auto below = all_of(each);
    out.insert(out.end(), below.begin(), below.end());
  }
  return out;
}

std::optional<std::string> printed_usage(const Usage& usage, int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty() || words.size() > 2) return std::nullopt;
  if (words[0] == "--print-manual") {
    if (words.size() == 1) return manual_of(usage.app);
    const auto part = usage.parts.find(words[1]);
    if (part != usage.parts.end()) return manual_of(part->second);
  }
  if (words[0] == "--print-completion" && words.size() == 2) {
    if (words[1] == "bash") return bash_completion(usage);
    if (words[1] == "zsh") return zsh_completion(usage);
    if (words[1] == "fish") return fish_completion(usage);
  }
  return std::nullopt;
}

}  // namespace lockfs
