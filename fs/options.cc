// SPDX-License-Identifier: MIT
#include "fs/options.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>

#include "backends/registry.h"
#include "fs/command.h"

namespace lockfs {
namespace {

// One key of `-o` and of the config file: its help, how to set it, how it reads now.
struct Key {
  std::string_view name;
  std::string_view help;
  std::string (*set)(Options& options, std::string_view value);
  std::string (*get)(const Options& options);
};

template <uint64_t Options::*field, uint64_t least>
std::string set_count(Options& options, std::string_view value) {
  const auto number = parse_number(value, least, 1000000000);
  if (!number) return number.error();
  options.*field = *number;
  return {};
}

template <uint64_t Options::*field>
std::string get_count(const Options& options) {
  return std::to_string(options.*field);
}

std::string set_one_of(std::string& field, std::string_view value,
                       std::initializer_list<std::string_view> allowed) {
  std::string list;
  for (const std::string_view word : allowed) {
    list += (list.empty() ? "" : ", ") + std::string(word);
    if (word == value) field = value;
  }
  return field == value ? std::string() : "'" + std::string(value) + "' is none of " + list;
}

std::string set_poll(Options& options, std::string_view value) {
  std::string_view digits = value;
  if (digits.ends_with("us")) digits.remove_suffix(2);
  const auto number = parse_number(digits, 0, 10000);
  if (!number) return "'" + std::string(value) + "' is not a time from 0us to 10000us";
  options.poll = std::chrono::microseconds(*number);
  return {};
}

tl::expected<mode_t, std::string> parse_bits(std::string_view value) {
  unsigned bits = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, bits, 8);
  if (value.empty() || stop != end || error != std::errc() || bits > 07777) {
    return tl::make_unexpected("'" + std::string(value) + "' is not an octal mode such as 0770");
  }
  return static_cast<mode_t>(bits);
}

std::string set_root_mode(Options& options, std::string_view value) {
  const auto bits = parse_bits(value);
  if (!bits) return bits.error();
  options.root_mode = *bits;
  return {};
}

const std::vector<Key>& keys() {
  static const std::vector<Key> all = {
      {"log_level", "trace, debug, info, warn or error",
       [](Options& o, std::string_view v) {
         return set_one_of(o.log_level, v, {"trace", "debug", "info", "warn", "error"});
       },
       [](const Options& o) { return o.log_level; }},
      {"log_format", "text, json or journald, a line an entry, to stderr",
       [](Options& o, std::string_view v) {
         return set_one_of(o.log_format, v, {"text", "json", "journald"});
       },
       [](const Options& o) { return o.log_format; }},
      {"poll", "while busy, ask for requests that long before sleeping (0us: never)", set_poll,
       [](const Options& o) {
         return std::to_string(
                    std::chrono::duration_cast<std::chrono::microseconds>(o.poll).count()) +
                "us";
       }},
      {"max_opens_per_user", "open descriptors of one user; root is not limited",
       set_count<&Options::max_opens_per_user, 1>, get_count<&Options::max_opens_per_user>},
      {"max_waiters_per_user", "waiting requests of one user",
       set_count<&Options::max_waiters_per_user, 1>, get_count<&Options::max_waiters_per_user>},
      {"max_names_per_user", "names that one user holds or has pinned",
       set_count<&Options::max_names_per_user, 1>, get_count<&Options::max_names_per_user>},
      {"max_lockspaces", "lockspaces of the mount", set_count<&Options::max_lockspaces, 1>,
       get_count<&Options::max_lockspaces>},
      {"idle_names", "free names whose statistics are kept", set_count<&Options::idle_names, 0>,
       get_count<&Options::idle_names>},
      {"capacity", "numbered locks of a lockspace", set_count<&Options::capacity, 1>,
       get_count<&Options::capacity>},
      {"root_mode", "mode of the mount's root: who may make lockspaces", set_root_mode,
       [](const Options& o) { return fmt::format("{:04o}", o.root_mode); }},
  };
  return all;
}

using Wrong = std::optional<std::string>;

// What is printed may quote anything: no control character reaches the terminal.
std::string printable(std::string words) {
  std::replace_if(
      words.begin(), words.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return words;
}

std::string at(const std::string& where, const toml::node& node) {
  return fmt::format("{}, line {}: ", where, node.source().begin.line);
}

Wrong read_lockspace_key(LockspaceOptions& space, std::string_view key, const toml::node& value) {
  if (key == "backend") {
    if (!value.is_string()) return "backend is a string, a URL such as \"memory:\"";
    space.backend = value.as_string()->get();
    if (auto wrong = check_backend_url(space.backend)) return *wrong;
  } else if (key == "mode") {
    if (!value.is_string()) return "mode is a string such as \"0770\"";
    const auto bits = parse_bits(value.as_string()->get());
    if (!bits) return bits.error();
    space.mode = *bits;
  } else if (key == "capacity") {
    if (!value.is_integer()) return "capacity is a whole number";
    const auto number = parse_number(std::to_string(value.as_integer()->get()), 1, 100000000);
    if (!number) return "capacity: " + number.error();
    space.capacity = *number;
  } else {
    return "unknown key '" + std::string(key) + "'; known: backend mode capacity";
  }
  return std::nullopt;
}

Wrong read_lockspace(Options& options, const std::string& name, const toml::node& node,
                     const std::string& where) {
  if (!node.is_table())
    return at(where, node) + "lockspace." + name + " is not a table: [lockspace." + name + "]";
  if (name.empty() || name.size() > 255 || name.front() == '.' ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
    return at(where, node) + "'" + name +
           "' cannot be a lockspace's name: 1 to 255 bytes, no '/', no leading '.'";
  }
  LockspaceOptions space;
  for (const auto& [key, value] : *node.as_table()) {
    if (const Wrong wrong = read_lockspace_key(space, key.str(), value)) {
      return at(where, value) + "lockspace." + name + ": " + *wrong;
    }
  }
  options.lockspaces[name] = space;
  return std::nullopt;
}

// A value as it would stand behind the `=` of an option.
std::string written(const toml::node& value) {
  if (value.is_string()) return value.as_string()->get();
  if (value.is_integer()) return std::to_string(value.as_integer()->get());
  return "(neither a string nor a whole number)";
}

Wrong read_config_table(Options& options, const toml::table& table, const std::string& where) {
  for (const auto& [key, value] : table) {
    Wrong wrong;
    if (key == "lockspace") {
      if (!value.is_table()) return at(where, value) + "lockspace is not a table: [lockspace.NAME]";
      for (const auto& [name, space] : *value.as_table()) {
        wrong = read_lockspace(options, std::string(name.str()), space, where);
        if (wrong) return wrong;
      }
      continue;
    }
    wrong = set_option(options, key.str(), written(value));
    if (wrong) return at(where, value) + *wrong;
  }
  return std::nullopt;
}

Wrong read_config_file(Options& options) {
  std::ifstream file(options.config);
  std::stringstream text;
  const bool empty = file.peek() == std::ifstream::traits_type::eof();
  if (!empty) text << file.rdbuf();
  if (!file.is_open() || file.bad() || text.fail()) return options.config + ": cannot be read";
  return parse_config(options, text.str(), options.config);
}

// `-o a,b=c`: our keys are set, the rest is for libfuse and the kernel.
Wrong read_mount_options(Options& options, const std::string& list) {
  std::stringstream stream(list);
  std::string word;
  while (std::getline(stream, word, ',')) {
    if (word.empty()) continue;
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const auto ours = [&](const Key& key) { return key.name == name; };
    if (std::any_of(keys().begin(), keys().end(), ours)) {
      if (equals == std::string::npos) return "option " + name + " needs a value";
      Wrong wrong = set_option(options, name, word.substr(equals + 1));
      if (wrong) return wrong;
    } else if (name != "config") {
      options.mount_options.push_back(word);
    }
  }
  return std::nullopt;
}

std::string config_of(const std::vector<std::string>& lists) {
  std::string file;
  for (const std::string& list : lists) {
    std::stringstream stream(list);
    std::string word;
    while (std::getline(stream, word, ',')) {
      if (word.starts_with("config=")) file = word.substr(7);
    }
  }
  return file;
}

std::string keys_help() {
  std::string out = "Options for -o and the config file:\n";
  const Options defaults;
  for (const Key& key : keys()) {
    out += fmt::format("  {:22}{} ({})\n", key.name, key.help, key.get(defaults));
  }
  return out + "Other -o options go to the kernel and libfuse (ro, allow_other, ...).";
}

}  // namespace

std::optional<std::string> set_option(Options& options, std::string_view key,
                                      std::string_view value) {
  std::string known;
  for (const Key& row : keys()) {
    known += (known.empty() ? "" : " ") + std::string(row.name);
    if (row.name != key) continue;
    const std::string wrong = row.set(options, value);
    if (wrong.empty()) return std::nullopt;
    return std::string(key) + ": " + wrong;
  }
  return "unknown option '" + std::string(key) + "'; known: " + known;
}

std::vector<std::pair<std::string, std::string>> option_values(const Options& options) {
  std::vector<std::pair<std::string, std::string>> out = {{"source", shown_url(options.source)},
                                                          {"mountpoint", options.mountpoint},
                                                          {"config", options.config}};
  for (const Key& key : keys()) out.emplace_back(key.name, key.get(options));
  return out;
}

std::optional<std::string> parse_config(Options& options, std::string_view text,
                                        const std::string& where) {
  Wrong wrong;
  try {
    wrong = read_config_table(options, toml::parse(text), where);
  } catch (const toml::parse_error& error) {
    wrong = fmt::format("{}, line {}: {}", where, error.source().begin.line, error.description());
  }
  if (wrong) wrong = printable(*wrong);
  return wrong;
}

tl::expected<Options, OptionsError> parse_options(int argc, const char* const* argv) {
  Options options;
  std::vector<std::string> places;
  std::vector<std::string> lists;
  CLI::App app{
      "lockfs: locks as files. Mounts SOURCE (a backend's URL, memory: by default) at "
      "MOUNTPOINT.",
      "lockfs"};
  app.footer(keys_help());
  app.add_option("places", places, "[SOURCE] MOUNTPOINT");
  app.add_option("-o", lists, "mount options, apart by commas")->allow_extra_args(false);
  app.add_option("--config", options.config, "a TOML file; -o config=FILE does the same");
  app.add_flag("-f,--foreground", options.foreground, "stay in the foreground");
  app.add_flag("--check-config", options.check_config, "read all options, say what is wrong, end");
  app.add_flag("-V,--version", options.version, "print the version");
  const auto fail = [](const std::string& words, bool help = false) {
    return tl::make_unexpected(OptionsError{help ? words : printable(words), help});
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return fail(app.help(), true);
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + "; lockfs --help lists all");
  }
  if (options.version) return options;
  if (const std::string file = config_of(lists); !file.empty()) options.config = file;
  if (!options.config.empty()) {
    if (const Wrong wrong = read_config_file(options)) return fail(*wrong);
  }
  for (const std::string& list : lists) {
    if (const Wrong wrong = read_mount_options(options, list)) return fail(*wrong);
  }
  if (places.size() > 2)
    return fail("too many words: [SOURCE] MOUNTPOINT, got '" + places[2] + "'");
  if (places.empty() && !options.check_config)
    return fail("where to? lockfs [SOURCE] MOUNTPOINT; more by lockfs --help");
  if (!places.empty()) options.mountpoint = places.back();
  if (places.size() == 2) options.source = places.front();
  if (const auto wrong = check_backend_url(options.source)) return fail(*wrong);
  return options;
}

}  // namespace lockfs
