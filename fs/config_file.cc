// SPDX-License-Identifier: MIT
#include "fs/config_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "backends/registry.h"
#include "fs/command.h"

namespace lockfs {
namespace {

using Wrong = std::optional<std::string>;

// What is wrong in a file, each with its line.
using Mistakes = std::vector<std::pair<uint32_t, std::string>>;
void note(Mistakes& mistakes, const toml::node& node, const std::string& words) {
  mistakes.emplace_back(node.source().begin.line, words);
}

// A key of a [lockspace.NAME] table.
struct SpaceKey {
  std::string_view name;
  std::string_view help;
  Wrong (*set)(LockspaceOptions& space, const toml::node& value);
};

Wrong set_space_backend(LockspaceOptions& space, const toml::node& value) {
  if (!value.is_string()) return "backend is a string, a URL such as \"memory:\"";
  space.backend = value.as_string()->get();
  return std::nullopt;
}

Wrong set_space_mode(LockspaceOptions& space, const toml::node& value) {
  if (!value.is_string()) return "mode is a string such as \"0770\"";
  const auto bits = parse_mode_bits(value.as_string()->get());
  if (!bits) return bits.error();
  space.mode = *bits;
  return std::nullopt;
}

Wrong set_space_capacity(LockspaceOptions& space, const toml::node& value) {
  if (!value.is_integer()) return "capacity is a whole number";
  const auto number = parse_number(std::to_string(value.as_integer()->get()), 1, 100000000);
  if (!number) return "capacity: " + number.error();
  space.capacity = *number;
  return std::nullopt;
}

constexpr std::array kSpaceKeys = {
    SpaceKey{"backend", "its backend's URL; else the mount's SOURCE", set_space_backend},
    SpaceKey{"mode", "its directory's mode: who may lock in it (0777)", set_space_mode},
    SpaceKey{"capacity", "its numbered locks; else the mount's capacity", set_space_capacity}};

Wrong read_lockspace_key(LockspaceOptions& space, std::string_view key, const toml::node& value) {
  for (const SpaceKey& known : kSpaceKeys) {
    if (known.name == key) return known.set(space, value);
  }
  std::string names;
  for (const SpaceKey& known : kSpaceKeys) names += " " + std::string(known.name);
  return "unknown key '" + std::string(key) + "'; known:" + names;
}

void read_lockspace(Options& options, const std::string& name, const toml::node& node,
                    Mistakes& mistakes) {
  if (!node.is_table()) {
    return note(mistakes, node, "lockspace." + name + " is not a table: [lockspace." + name + "]");
  }
  if (name.empty() || name.size() > 255 || name.front() == '.' ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    return note(
        mistakes, node,
        "'" + name + "' cannot be a lockspace's name: 1 to 255 bytes, no '/', no leading '.'");
  }
  LockspaceOptions space;
  for (const auto& [key, value] : *node.as_table()) {
    if (const Wrong wrong = read_lockspace_key(space, key.str(), value)) {
      note(mistakes, value, "lockspace." + name + ": " + *wrong);
    }
  }
  const toml::node* url = node.as_table()->get("backend");
  if (url != nullptr && url->is_string() && !options.again) {
    const Wrong wrong = check_backend_url(space.backend);
    if (wrong) note(mistakes, *url, "lockspace." + name + ": " + *wrong);
  }
  options.lockspaces[name] = space;
}

// A value as it would stand behind the `=` of an option.
std::string written(const toml::node& value) {
  return value.is_string() ? value.as_string()->get() : std::to_string(value.as_integer()->get());
}

void read_table(Options& options, const toml::table& table, Mistakes& mistakes) {
  for (const auto& [key, value] : table) {
    if (key != "lockspace") {
      if (!value.is_string() && !value.is_integer()) {
        note(mistakes, value, std::string(key.str()) + " takes a string or a whole number");
        continue;
      }
      if (const Wrong wrong = set_option(options, key.str(), written(value))) {
        note(mistakes, value, *wrong);
      }
    } else if (value.is_table()) {
      for (const auto& [name, space] : *value.as_table()) {
        read_lockspace(options, std::string(name.str()), space, mistakes);
      }
    } else {
      note(mistakes, value, "lockspace is not a table: [lockspace.NAME]");
    }
  }
}

// All of them in one line, in the order of the file.
Wrong in_words(Mistakes mistakes, const std::string& where) {
  constexpr size_t kMost = 10;
  if (mistakes.empty()) return std::nullopt;
  std::stable_sort(mistakes.begin(), mistakes.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string out;
  for (size_t i = 0; i < std::min(mistakes.size(), kMost); ++i) {
    const auto& [line, words] = mistakes[i];
    out += fmt::format("{}{}, line {}: {}", i == 0 ? "" : "; ", where, line, words);
  }
  if (mistakes.size() > kMost) out += fmt::format("; and {} more", mistakes.size() - kMost);
  return printable(out);
}

}  // namespace

std::string printable(std::string words) {
  std::replace_if(
      words.begin(), words.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return words;
}

std::optional<std::string> parse_config(Options& options, std::string_view text,
                                        const std::string& where) {
  Mistakes mistakes;
  try {
    read_table(options, toml::parse(text), mistakes);
  } catch (const toml::parse_error& error) {
    mistakes.emplace_back(error.source().begin.line, error.description());
  }
  return in_words(std::move(mistakes), where);
}

std::optional<std::string> read_config_file(Options& options) {
  // A pipe has nothing to say the second time, or never.
  std::error_code error;
  if (options.again && !std::filesystem::is_regular_file(options.config, error)) {
    return options.config + ": is no regular file, or it is gone";
  }
  std::ifstream file(options.config);
  std::stringstream text;
  const bool empty = file.peek() == std::ifstream::traits_type::eof();
  if (!empty) text << file.rdbuf();
  if (!file.is_open() || file.bad() || text.fail()) return options.config + ": cannot be read";
  return parse_config(options, text.str(), options.config);
}

std::vector<UsageRow> lockspace_rows() {
  std::vector<UsageRow> rows;
  rows.reserve(kSpaceKeys.size());
  for (const SpaceKey& key : kSpaceKeys) {
    rows.push_back({std::string(key.name), std::string(key.help)});
  }
  return rows;
}

}  // namespace lockfs
