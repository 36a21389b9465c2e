// SPDX-License-Identifier: MIT
// Any bytes as a config file, and its lines as the words of a command line: what is accepted is
// within its limits, a refusal is one line that says where.
#include <cstdio>
#include <cstdlib>

#include "fs/options.h"

namespace lockfs {
namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void look_at_refusal(const std::string& words) {
  expect(!words.empty(), "a refusal without words");
  for (const char c : words) {
    expect(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a control character in a refusal");
  }
}

void look_at_options(const Options& options) {
  constexpr uint64_t kMost = 1000000000;
  for (const uint64_t limit :
       {options.max_opens_per_user, options.max_waiters_per_user, options.max_names_per_user,
        options.max_lockspaces_per_user, options.max_lockspaces, options.capacity}) {
    expect(limit >= 1 && limit <= kMost, "a limit out of bounds");
  }
  expect(options.idle_names <= kMost, "idle_names out of bounds");
  expect(options.root_mode <= 07777, "root_mode out of bounds");
  expect(options.poll >= Duration::zero() && options.poll <= std::chrono::milliseconds(10), "poll");
  for (const auto& [name, space] : options.lockspaces) {
    expect(!name.empty() && name.size() <= 255 && name.front() != '.', "a lockspace's name");
    expect(name.find('/') == std::string::npos, "a slash in a lockspace's name");
    expect(name.find('\0') == std::string::npos, "a NUL in a lockspace's name");
    if (space.mode) expect(*space.mode <= 07777, "a lockspace's mode");
    if (space.capacity) expect(*space.capacity >= 1 && *space.capacity <= kMost, "a capacity");
  }
  // What is shown can be set again, to the same.
  Options again;
  for (const auto& [key, value] : option_values(options)) {
    if (key == "source" || key == "mountpoint" || key == "config") continue;
    expect(!set_option(again, key, value), "a value shown cannot be set");
  }
  again.source = options.source;
  again.mountpoint = options.mountpoint;
  again.config = options.config;
  expect(option_values(again) == option_values(options), "a value set again is another");
}

void try_config(std::string_view text) {
  Options options;
  const auto wrong = parse_config(options, text, "file");
  if (!wrong) return look_at_options(options);
  look_at_refusal(*wrong);
  expect(wrong->starts_with("file, line "), "a refusal that does not say where");
}

void try_command_line(std::string_view text) {
  std::vector<std::string> words = {"lockfs"};
  for (size_t at = 0; at < text.size() && words.size() < 20;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    words.emplace_back(text.substr(at, end - at).substr(0, text.substr(at).find('\0')));
    at = end + 1;
  }
  // No file of this host is read.
  std::vector<const char*> argv;
  for (const std::string& word : words) {
    if (word.find("config") != std::string::npos) return;
    argv.push_back(word.c_str());
  }
  const auto options = parse_options(static_cast<int>(argv.size()), argv.data());
  if (options) return look_at_options(*options);
  if (!options.error().is_help) look_at_refusal(options.error().words);
}

}  // namespace
}  // namespace lockfs

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  lockfs::try_config(text);
  lockfs::try_command_line(text);
  return 0;
}
