// SPDX-License-Identifier: MIT
// reStructuredText, for rst2man.
#include <algorithm>
#include <sstream>

#include "usage/command.h"

namespace lockfs {
namespace {

// Text in which no character means anything to reStructuredText.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\*`|_").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string bold(const std::string& text) { return "**" + plain(text) + "**"; }
std::string italic(const std::string& text) { return "*" + plain(text) + "*"; }

// A term and what it means; each line of the meaning keeps to the right of the term.
std::string defined(const std::string& term, const std::string& meaning) {
  std::string out = term + "\n";
  std::stringstream lines(meaning.empty() ? "..." : meaning);
  for (std::string line; std::getline(lines, line);)
    out += (line.empty() ? "" : "    ") + line + "\n";
  return out + "\n";
}

std::string term_of(const UsageOption& option) {
  if (option.names.front().front() != '-') return italic(option.names.front());
  std::string out;
  for (const std::string& name : option.names) out += (out.empty() ? "" : ", ") + bold(name);
  return out + (option.value.empty() ? "" : " " + italic(option.value));
}

std::string meaning_of(const UsageOption& option) {
  std::string out = option.help;
  std::string list;
  for (const std::string& word : option.words) list += (list.empty() ? "" : ", ") + word;
  if (!list.empty()) out += ": " + list;
  if (!option.bounds.empty()) out += " (" + option.bounds + ")";
  return plain(out);
}

// Each command has it; it is said of the program.
bool is_help(const UsageOption& option) { return option.names.back() == "--help"; }

std::string options_of(const UsageCommand& command) {
  std::string out;
  for (const UsageOption& option : command.positionals) {
    out += defined(term_of(option), meaning_of(option));
  }
  std::string group = "Options";
  for (const UsageOption& option : command.options) {
    if (!command.path.empty() && is_help(option)) continue;
    if (option.group != group) out += plain(option.group) + ":\n\n";
    group = option.group;
    out += defined(term_of(option), meaning_of(option));
  }
  return out;
}

// As it stands: a footer is laid out for the help.
std::string footer_of(const UsageCommand& command) {
  if (command.footer.empty()) return "";
  std::string out = "::\n\n";
  std::stringstream lines(command.footer);
  for (std::string line; std::getline(lines, line);) out += "    " + line + "\n";
  return out + "\n";
}

std::string line_of(const UsageCommand& command) {
  std::string out = bold(command.path);
  if (!std::all_of(command.options.begin(), command.options.end(), is_help)) out += " [options]";
  for (const UsageOption& option : command.positionals) {
    const std::string name = italic(option.names.front()) + (option.many ? " ..." : "");
    out += option.needed ? " " + name : " [" + name + "]";
  }
  return out;
}

}  // namespace

std::string manual_of(const CLI::App& app) {
  const UsageCommand program = command_of(Usage{app});
  std::string out = options_of(program) + footer_of(program);
  if (program.commands.empty()) return out;
  out += "COMMANDS\n========\n\n";
  for (const UsageCommand* each : all_of(program)) {
    if (each == &program) continue;
    out +=
        defined(line_of(*each), plain(each->help) + "\n\n" + options_of(*each) + footer_of(*each));
  }
  return out;
}

std::string manual_of(const std::vector<UsageRow>& rows) {
  std::string out;
  for (const UsageRow& row : rows) out += defined(bold(row.name), plain(row.help));
  return out;
}

}  // namespace lockfs
