// SPDX-License-Identifier: MIT
#include "fs/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "backends/registry.h"
#include "fs/config_file.h"
#include "fs/serve.h"

namespace lockfs {
namespace {

using Wrong = std::optional<std::string>;

constexpr const char* kSource = "SOURCE";
constexpr const char* kMountpoint = "MOUNTPOINT";

std::vector<std::string> words_of(const std::string& list) {
  std::stringstream stream(list);
  std::vector<std::string> words;
  for (std::string word; std::getline(stream, word, ',');) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

// What fstab says to mount(8) and to systemd, and the helper gets all the same: those words of any
// filesystem that libfuse does not take, and that change nothing here. mand would change locks.
bool is_for_mount(const std::string& word) {
  constexpr std::array kWords = {
      "defaults",   "auto",       "noauto",      "user",          "nouser",
      "users",      "group",      "owner",       "_netdev",       "nofail",
      "relatime",   "norelatime", "strictatime", "nostrictatime", "lazytime",
      "nolazytime", "diratime",   "nodiratime",  "iversion",      "noiversion",
      "nomand",     "symfollow",  "nosymfollow", "loud",          "silent"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end() || word.starts_with("x-") ||
         word.starts_with("X-") || word.starts_with("comment=") || word.starts_with("user=");
}

// `-o a,b=c`: our keys are set, the rest is for libfuse and the kernel.
Wrong read_mount_options(Options& options, const std::string& list) {
  for (const std::string& word : words_of(list)) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (is_option_key(name)) {
      if (equals == std::string::npos) return "option " + name + " needs a value";
      Wrong wrong = set_option(options, name, word.substr(equals + 1));
      if (wrong) return wrong;
    } else if (name == "remount") {
      return "a mount of lockfs cannot be changed: SIGHUP reads its config file again";
    } else if (name == "config") {
      if (word.size() <= name.size() + 1) return "option config needs a value";
    } else if (!is_for_mount(word)) {
      options.mount_options.push_back(word);
    }
  }
  return std::nullopt;
}

std::string config_of(const std::vector<std::string>& lists) {
  std::string file;
  for (const std::string& list : lists) {
    for (const std::string& word : words_of(list)) {
      if (word.starts_with("config=")) file = word.substr(7);
    }
  }
  return file;
}

std::vector<UsageRow> url_rows() {
  std::vector<UsageRow> rows;
  for (const BackendUsage& usage : backend_usages()) {
    rows.push_back({std::string(usage.url), std::string(usage.help)});
  }
  return rows;
}

// CLI11 knows no names for parts of one positional, nor a command beside it: serve is none in the
// app that parses, for a mountpoint may be called so.
std::string help_of(const CommandLine& line) {
  std::string out = line.app.help();
  out.replace(out.find("Usage:"), out.find("\nOptions:") - out.find("Usage:"),
              "Usage: lockfs [OPTIONS] [SOURCE] MOUNTPOINT\n"
              "       lockfs serve URL\n");
  out += "\nOptions for -o and the config file:\n";
  size_t width = 0;
  for (const UsageRow& row : option_rows()) width = std::max(width, row.name.size());
  for (const UsageRow& row : option_rows()) {
    out += fmt::format("  {:{}}  {}\n", row.name, width, row.help);
  }
  out += "Other -o options go to the kernel and libfuse (ro, allow_other, ...).\n\nSOURCE:\n";
  for (const UsageRow& row : url_rows()) out += "  " + row.name + "\n";
  return out +
         "\nlockfs(8) tells what they are, lockfs.toml(5) of the config file; lockctl shows locks.";
}

// Files, and all of the places.
Wrong believe(CommandLine& line) {
  Options& options = line.options;
  const std::string file = config_of(line.lists);
  if (!file.empty() && !options.again) options.config = file;
  if (!options.config.empty()) {
    if (Wrong wrong = read_config_file(options)) return wrong;
  }
  for (const std::string& list : line.lists) {
    if (Wrong wrong = read_mount_options(options, list)) return wrong;
  }
  if (!line.more.empty()) {
    return "too many words: [SOURCE] MOUNTPOINT, got '" + line.more.front() + "'";
  }
  const bool any = line.app.count(kSource) != 0;
  if (!any && !options.check_config) {
    return "where to? lockfs [SOURCE] MOUNTPOINT; more by lockfs --help";
  }
  const bool both = line.app.count(kMountpoint) != 0;
  if (any) options.mountpoint = both ? line.mountpoint : line.source;
  if (both) options.source = line.source;
  return options.again ? std::nullopt : check_backend_url(options.source);
}

// `--config=` with nothing behind: CLI11 would take the next word.
Wrong find_empty_value(int argc, const char* const* argv) {
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view word = argv[i];
    if (word.starts_with("--") && word.find('=') == word.size() - 1) {
      return std::string(word) + " has no value";
    }
  }
  return std::nullopt;
}

tl::expected<Options, OptionsError> fail(const std::string& words) {
  return tl::make_unexpected(OptionsError{printable(words), false});
}

}  // namespace

CommandLine::CommandLine(Caller caller)
    : app("lockfs: locks as files. Mounts SOURCE (a backend's URL, memory: by default) at "
          "MOUNTPOINT.",
          "lockfs") {
  // CLI11 takes brackets off the words of a list: of a mountpoint they are a part.
  app.add_option(kSource, source, "a backend's URL, memory: if none is given");
  app.add_option(kMountpoint, mountpoint, "a directory");
  app.add_option("more", more)->group("");
  app.add_option("-o", lists, "mount options, separated by commas")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  if (caller == Caller::kMount) {
    app.add_flag("-f", options.fake, "do all but the mount");
    // What else mount(8) may say; there is nothing to do about it.
    for (const char* letter : {"-n", "-s", "-v"}) app.add_flag(letter);
    app.add_option("-t", "the type that fstab gave")->type_name("TYPE");
    return;
  }
  app.add_option("--config", options.config, "a TOML file; -o config=FILE does the same")
      ->type_name("FILE");
  app.add_flag("-f,--foreground", options.foreground, "stay in the foreground");
  app.add_flag("--check-config", options.check_config, "read all options, say what is wrong, end");
  app.add_flag("-V,--version", options.version, "print the version");
}

CommandLine::Caller caller_of(std::string_view program) {
  const size_t slash = program.rfind('/');
  if (slash != std::string_view::npos) program.remove_prefix(slash + 1);
  return program.starts_with("mount.") ? CommandLine::Caller::kMount : CommandLine::Caller::kUser;
}

tl::expected<Options, OptionsError> parse_options(int argc, const char* const* argv) {
  CommandLine line(caller_of(argc > 0 ? argv[0] : ""));
  if (const Wrong wrong = find_empty_value(argc, argv)) return fail(*wrong);
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return tl::make_unexpected(OptionsError{help_of(line), true});
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + "; lockfs --help lists all");
  }
  if (line.options.version) return line.options;
  if (const Wrong wrong = believe(line)) return fail(*wrong);
  return line.options;
}

tl::expected<Options, OptionsError> parse_options_again(int argc, const char* const* argv,
                                                        const std::string& config) {
  CommandLine line(caller_of(argc > 0 ? argv[0] : ""));
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return fail(error.what());
  }
  line.options.again = true;
  line.options.config = config;
  if (const Wrong wrong = believe(line)) return fail(*wrong);
  return line.options;
}

std::optional<std::string> printed_usage(int argc, const char* const* argv) {
  if (argc < 2 || !std::string_view(argv[1]).starts_with("--print-")) return std::nullopt;
  CommandLine line(CommandLine::Caller::kUser);
  line.app.add_subcommand(serve_app());
  std::vector<std::string> keys = {"config="};
  for (const UsageRow& row : option_rows()) keys.push_back(row.name + "=");
  std::vector<std::string> schemes;
  for (const BackendUsage& usage : backend_usages()) {
    schemes.emplace_back(usage.url.substr(0, usage.url.find(':') + 1));
  }
  return printed_usage(
      Usage{line.app,
            {{"keys", option_rows()}, {"lockspace", lockspace_rows()}, {"urls", url_rows()}},
            {{"-o", keys}, {kSource, schemes}}},
      argc, argv);
}

}  // namespace lockfs
