// SPDX-License-Identifier: MIT
#include "fs/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "backends/registry.h"
#include "fs/command.h"

namespace lockfs {
namespace {

// One key of `-o` and of the config file: its help, how to set it, how it reads now, and whether a
// mount that serves takes another value.
struct Key {
  std::string_view name;
  std::string_view help;
  std::string (*set)(Options& options, std::string_view value);
  std::string (*get)(const Options& options);
  bool reloads = false;
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

std::string set_root_mode(Options& options, std::string_view value) {
  const auto bits = parse_mode_bits(value);
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
       [](const Options& o) { return o.log_level; }, true},
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
       set_count<&Options::max_opens_per_user, 1>, get_count<&Options::max_opens_per_user>, true},
      {"max_waiters_per_user", "waiting requests of one user",
       set_count<&Options::max_waiters_per_user, 1>, get_count<&Options::max_waiters_per_user>,
       true},
      {"max_names_per_user", "names that one user holds or has pinned",
       set_count<&Options::max_names_per_user, 1>, get_count<&Options::max_names_per_user>, true},
      {"max_lockspaces_per_user", "lockspaces that one user owns",
       set_count<&Options::max_lockspaces_per_user, 1>,
       get_count<&Options::max_lockspaces_per_user>, true},
      {"max_lockspaces", "lockspaces of the mount", set_count<&Options::max_lockspaces, 1>,
       get_count<&Options::max_lockspaces>, true},
      {"idle_names", "free names whose statistics are kept", set_count<&Options::idle_names, 0>,
       get_count<&Options::idle_names>, true},
      {"capacity", "numbered locks of a lockspace that says nothing else",
       set_count<&Options::capacity, 1>, get_count<&Options::capacity>, true},
      {"root_mode", "mode of the mount's root: who may make lockspaces", set_root_mode,
       [](const Options& o) { return fmt::format("{:04o}", o.root_mode); }},
  };
  return all;
}

}  // namespace

tl::expected<mode_t, std::string> parse_mode_bits(std::string_view value) {
  unsigned bits = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, bits, 8);
  if (value.empty() || stop != end || error != std::errc() || bits > 07777) {
    return tl::make_unexpected("'" + std::string(value) + "' is not an octal mode such as 0770");
  }
  return static_cast<mode_t>(bits);
}

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

bool is_option_key(std::string_view name) {
  return std::any_of(keys().begin(), keys().end(),
                     [&](const Key& key) { return key.name == name; });
}

std::vector<UsageRow> option_rows() {
  std::vector<UsageRow> rows;
  const Options defaults;
  for (const Key& key : keys()) {
    rows.push_back({std::string(key.name), fmt::format("{} ({})", key.help, key.get(defaults))});
  }
  return rows;
}

Changes take_changes(Options& options, const Options& fresh) {
  Changes changes;
  for (const Key& key : keys()) {
    const std::string value = key.get(fresh);
    if (value == key.get(options)) continue;
    if (key.reloads) key.set(options, value);
    (key.reloads ? changes.taken : changes.refused)
        .push_back(fmt::format("{}={}", key.name, value));
  }
  std::map<std::string, LockspaceOptions> spaces = options.lockspaces;
  spaces.insert(fresh.lockspaces.begin(), fresh.lockspaces.end());
  for (const auto& [name, space] : spaces) {
    const auto before = options.lockspaces.find(name);
    const auto after = fresh.lockspaces.find(name);
    if (before != options.lockspaces.end() && after != fresh.lockspaces.end() &&
        before->second == after->second) {
      continue;
    }
    changes.refused.push_back("lockspace." + name);
  }
  return changes;
}

}  // namespace lockfs
