// SPDX-License-Identifier: MIT
// Each shell's script walks the words that stand there to find the command, and offers what may
// come next: the value of the option before, else options, commands and words, else files.
#include <fmt/format.h>

#include "usage/command.h"

namespace lockfs {
namespace {

// Between single quotes of bash and zsh.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string fish_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

// A list of words by blanks has none that contains one.
std::string joined(const std::vector<std::string>& words, std::string (*each)(const std::string&)) {
  std::string out;
  for (const std::string& word : words) {
    if (word.find(' ') == std::string::npos) out += (out.empty() ? "" : " ") + each(word);
  }
  return out;
}
std::string as_is(const std::string& word) { return word; }

std::vector<std::string> names_of(const std::vector<UsageCommand>& commands) {
  std::vector<std::string> names;
  names.reserve(commands.size());
  for (const UsageCommand& each : commands) names.push_back(each.name);
  return names;
}

std::vector<std::string> options_of(const UsageCommand& command) {
  std::vector<std::string> names;
  for (const UsageOption& option : command.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return names;
}

// Commands, and the words of positionals.
std::vector<std::string> places_of(const UsageCommand& command) {
  std::vector<std::string> words = names_of(command.commands);
  for (const UsageOption& option : command.positionals) {
    words.insert(words.end(), option.words.begin(), option.words.end());
  }
  return words;
}

// `case` of bash and zsh: the command that the words so far have led to.
std::string steps(const UsageCommand& program) {
  std::string out;
  for (const UsageCommand* each : all_of(program)) {
    for (const UsageCommand& below : each->commands) {
      out += fmt::format("      {}) command={} ;;\n", quoted(each->path + " " + below.name),
                         quoted(below.path));
    }
  }
  return out.empty() ? "      *) ;;\n" : out;
}

// `case` of bash and zsh: what stands behind an option that takes a value.
std::string values(const UsageCommand& program,
                   const std::function<std::string(const UsageOption&)>& offer) {
  std::string out;
  for (const UsageCommand* each : all_of(program)) {
    for (const UsageOption& option : each->options) {
      if (option.value.empty()) continue;
      std::string pattern;
      for (const std::string& name : option.names) {
        pattern += (pattern.empty() ? "" : "|") + quoted(each->path + " " + name);
      }
      out += fmt::format("    {}) {}; return ;;\n", pattern, offer(option));
    }
  }
  return out.empty() ? "    *) ;;\n" : out;
}

// A word to which something is to be added, "capacity=", "memory:".
bool goes_on(const std::vector<std::string>& words) {
  return !words.empty() && (words.front().ends_with('=') || words.front().ends_with(':'));
}

std::string bash_value(const UsageOption& option) {
  if (option.words.empty()) return option.files ? "compopt -o default" : "true";
  return fmt::format("COMPREPLY=($(compgen -W {} -- \"$word\")){}",
                     quoted(joined(option.words, as_is)),
                     goes_on(option.words) ? "; compopt -o nospace" : "");
}

std::string zsh_value(const UsageOption& option) {
  if (option.words.empty()) {
    return option.files ? "_files" : "_message " + quoted(option.value);
  }
  return fmt::format("compadd{} -- {}", goes_on(option.words) ? " -S ''" : "",
                     joined(option.words, quoted));
}

// 'name:what it does', as _describe takes it.
std::string zsh_described(const std::string& name, const std::string& help) {
  std::string escaped;
  for (const char c : name) escaped += c == ':' ? std::string("\\:") : std::string(1, c);
  return quoted(help.empty() ? escaped : escaped + ":" + help);
}

std::string zsh_lists(const UsageCommand& command) {
  std::string out = fmt::format("    {})\n      options=(\n", quoted(command.path));
  for (const UsageOption& option : command.options) {
    for (const std::string& name : option.names) {
      out += "        " + zsh_described(name, option.help) + "\n";
    }
  }
  out += "      )\n      places=(\n";
  for (const UsageCommand& each : command.commands) {
    out += "        " + zsh_described(each.name, each.help) + "\n";
  }
  for (const UsageOption& option : command.positionals) {
    for (const std::string& word : option.words) out += "        " + zsh_described(word, "") + "\n";
  }
  return out + "      ) ;;\n";
}

std::string fish_option(const UsageOption& option) {
  std::string out;
  for (const std::string& name : option.names) {
    out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  }
  if (!option.value.empty()) out += option.files && option.words.empty() ? " -r -F" : " -x";
  if (!option.words.empty()) out += " -a " + fish_quoted(joined(option.words, as_is));
  return out + " -d " + fish_quoted(option.help);
}

std::string fish_condition(const UsageCommand& command) {
  if (!command.path.empty()) return "__fish_seen_subcommand_from " + command.name;
  if (command.commands.empty()) return "true";
  return "not __fish_seen_subcommand_from " + joined(names_of(command.commands), as_is);
}

}  // namespace

std::string bash_completion(const Usage& usage) {
  const UsageCommand program = command_of(usage);
  std::string offers;
  for (const UsageCommand* each : all_of(program)) {
    offers += fmt::format("    {}) options={} places={} ;;\n", quoted(each->path),
                          quoted(joined(options_of(*each), as_is)),
                          quoted(joined(places_of(*each), as_is)));
  }
  constexpr std::string_view kScript = R"(# bash completion for {0}, made from its options.
_{0}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local command= options= places= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$command ${{COMP_WORDS[i]}}" in
{1}    esac
  done
  COMPREPLY=()
  case "$command $before" in
{2}  esac
  case "$command" in
{3}  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
    return
  fi
  compopt -o default
  COMPREPLY=($(compgen -W "$places" -- "$word"))
  [[ ${{COMPREPLY[*]-}} != *[:=] ]] || compopt -o nospace
}}
complete -F _{0} {0}
)";
  return fmt::format(kScript, program.name, steps(program), values(program, bash_value), offers);
}

std::string zsh_completion(const Usage& usage) {
  const UsageCommand program = command_of(usage);
  std::string lists;
  for (const UsageCommand* each : all_of(program)) lists += zsh_lists(*each);
  constexpr std::string_view kScript = R"(#compdef {0}
# zsh completion for {0}, made from its options.
_{0}() {{
  local command= i
  local -a options places
  for ((i = 2; i < CURRENT; i++)); do
    case "$command ${{words[i]}}" in
{1}    esac
  done
  case "$command ${{words[CURRENT-1]}}" in
{2}  esac
  case "$command" in
{3}  esac
  if [[ ${{words[CURRENT]}} == -* ]]; then
    _describe -o option options
    return
  fi
  _describe word places
  _files
}}
_{0} "$@"
)";
  return fmt::format(kScript, program.name, steps(program), values(program, zsh_value), lists);
}

std::string fish_completion(const Usage& usage) {
  const UsageCommand program = command_of(usage);
  std::string out = fmt::format("# fish completion for {}, made from its options.\n", program.name);
  const std::string start = "complete -c " + program.name + " -n ";
  for (const UsageCommand* each : all_of(program)) {
    const std::string here = start + fish_quoted(fish_condition(*each));
    for (const UsageOption& option : each->options) out += here + fish_option(option) + "\n";
    for (const UsageCommand& below : each->commands) {
      out += here + " -a " + below.name + " -d " + fish_quoted(below.help) + "\n";
    }
    for (const UsageOption& option : each->positionals) {
      if (option.words.empty()) continue;
      out += here + " -a " + fish_quoted(joined(option.words, as_is)) + "\n";
    }
  }
  return out;
}

}  // namespace lockfs
