// SPDX-License-Identifier: MIT
#include "usage/command.h"

#include <algorithm>
#include <sstream>

namespace lockfs {
namespace {

using Words = std::map<std::string, std::vector<std::string>>;

// What stands between two signs.
std::string between(const std::string& text, char open, char close) {
  const size_t start = text.find(open);
  const size_t end = text.find(close);
  if (start == std::string::npos || end == std::string::npos || end < start) return "";
  return text.substr(start + 1, end - start - 1);
}

// Of a type such as "KEY:{one,two}" or "SECS:FLOAT in [0 - 10]".
void read_type(const std::string& type, UsageOption& out) {
  out.value = type.substr(0, type.find(':'));
  out.bounds = between(type, '[', ']');
  std::stringstream list(between(type, '{', '}'));
  for (std::string word; std::getline(list, word, ',');) out.words.push_back(word);
  const auto says = [&](const char* what) { return type.find(what) != std::string::npos; };
  out.files = says("FILE") || says("DIR") || says("PATH");
}

UsageOption option_of(const CLI::Option& option, const Words& words) {
  UsageOption out;
  for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  if (!option.nonpositional()) out.names = {option.get_name(true)};
  if (option.get_type_size_max() != 0) read_type(option.get_type_name(), out);
  out.help = option.get_description();
  out.group = option.get_group();
  out.needed = option.get_required();
  out.many = option.get_items_expected_max() > 1;
  for (const std::string& name : out.names) {
    const auto known = words.find(name);
    if (known != words.end()) out.words = known->second;
  }
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
