// SPDX-License-Identifier: MIT
#include "fs/command.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>

namespace lockfs {
namespace {

using tl::make_unexpected;
using Words = std::vector<std::string>;

tl::expected<int, std::string> parse_signal(std::string_view text) {
  std::string_view name = text;
  if (name.size() > 3 && same_word(name.substr(0, 3), "SIG")) name.remove_prefix(3);
  for (int signal = 1; signal < 32; ++signal) {
    const char* known = sigabbrev_np(signal);
    if (known != nullptr && same_word(name, known)) return signal;
  }
  if (const auto number = parse_number(text, 1, 31)) return static_cast<int>(*number);
  return make_unexpected(as_said(text) + ": no such signal; for example TERM or USR1");
}

// One option of an acquiring command: sets it, or says what is wrong with its value.
struct Option {
  std::string_view name;
  bool has_value;
  std::string (*apply)(Command& command, std::string_view value);
};

template <std::optional<Duration> Request::*field>
std::string set_duration(Command& command, std::string_view value) {
  const auto duration = parse_duration(value);
  if (!duration) return duration.error();
  command.request.*field = *duration;
  return {};
}

std::string set_positive(std::optional<Duration>& field, std::string_view value) {
  const auto duration = parse_duration(value);
  if (!duration) return duration.error();
  if (*duration == Duration::zero()) return "must be more than 0";
  field = *duration;
  return {};
}

std::string set_size(Command& command, std::string_view value) {
  const auto size = parse_number(value, 1, 1000000000);
  if (!size) return size.error();
  command.request.want.slots = static_cast<uint32_t>(*size);
  return {};
}

std::string set_onlost(Command& command, std::string_view value) {
  const auto signal = parse_signal(value);
  if (!signal) return signal.error();
  command.onlost = *signal;
  return {};
}

constexpr std::array kOptions = {
    Option{"try", false,
           [](Command& c, std::string_view) {
             c.request.now = true;
             return std::string();
           }},
    Option{"timeout", true, set_duration<&Request::timeout>},
    Option{"ttl", true,
           [](Command& c, std::string_view v) { return set_positive(c.request.ttl, v); }},
    Option{"size", true, set_size},
    Option{"linger", true,
           [](Command& c, std::string_view v) { return set_positive(c.request.linger, v); }},
    Option{"onlost", true, set_onlost},
    Option{"note", true,
           [](Command& c, std::string_view v) {
             c.request.note = v;
             return std::string();
           }},
};

std::string apply_option(Command& command, std::string_view word, uint32_t& seen) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  for (size_t i = 0; i < kOptions.size(); ++i) {
    const Option& option = kOptions.at(i);
    if (!same_word(name, option.name)) continue;
    if ((seen >> i & 1) != 0) return "option " + as_said(name) + " is there twice";
    seen |= 1U << i;
    const bool has_value = equals != std::string_view::npos;
    if (has_value && !option.has_value) return "option " + as_said(name) + " takes no value";
    if (!has_value && option.has_value) return "option " + as_said(name) + " needs a value";
    const std::string wrong = option.apply(command, has_value ? word.substr(equals + 1) : "");
    return wrong.empty() ? wrong : std::string(option.name) + ": " + wrong;
  }
  return "unknown option " + as_said(word) +
         "; options: try timeout= ttl= size= linger= onlost= note=";
}

tl::expected<Command, std::string> parse_acquire(const Words& words, Share want, bool slot) {
  Command command;
  command.request.want = want;
  uint32_t seen = 0;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string wrong = apply_option(command, words[i], seen);
    if (!wrong.empty()) return make_unexpected(wrong + " (word " + std::to_string(i + 1) + ")");
  }
  const bool sized = command.request.want.is_slot();
  if (slot && !sized) return make_unexpected(std::string("SLOT needs size=N, as in SLOT size=3"));
  if (!slot && sized) return make_unexpected(std::string("size= goes with SLOT only"));
  if (command.request.now && command.request.timeout) {
    return make_unexpected(std::string("try does not wait, so timeout= makes no sense with it"));
  }
  return command;
}

// UN, renew and resume stand alone; nullopt if `words` is none of them.
std::optional<tl::expected<Command, std::string>> parse_alone(const Words& words) {
  const std::string& first = words.front();
  const std::string_view verb = std::string_view(first).substr(0, first.find('='));
  Command command;
  size_t count = 1;
  if (same_word(first, "UN")) {
    command.verb = Command::Verb::kRelease;
  } else if (same_word(verb, "renew")) {
    command.verb = Command::Verb::kRenew;
    if (verb.size() != first.size()) {
      const std::string wrong = set_positive(command.ttl, first.substr(verb.size() + 1));
      if (!wrong.empty()) return make_unexpected("renew: " + wrong);
    }
  } else if (same_word(first, "resume")) {
    command.verb = Command::Verb::kResume;
    count = 2;
    if (words.size() < 2)
      return make_unexpected(
          std::string("resume needs the key: what this.key said while it was held"));
    command.key = words[1];
  } else {
    return std::nullopt;
  }
  if (words.size() > count) {
    return make_unexpected(as_said(verb) + " stands alone, but " + as_said(words[count]) +
                           " follows" +
                           (same_word(verb, "renew") ? "; with another ttl it is renew=DUR" : ""));
  }
  return command;
}

}  // namespace

tl::expected<Words, std::string> split_words(std::string_view text) {
  Words words;
  bool in_word = false;
  bool in_quotes = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!in_quotes && (c == ' ' || c == '\t')) {
      in_word = false;
      continue;
    }
    const bool escape = in_quotes && c == '\\' && i + 1 < text.size();
    if (escape) ++i;
    if (is_control(text[i])) {
      return make_unexpected("byte " + std::to_string(i + 1) + " is a control character" +
                             (text[i] == '\r' ? " (a carriage return)" : ""));
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (!escape && c == '"') {
      in_quotes = !in_quotes;
    } else {
      words.back() += text[i];
    }
  }
  if (in_quotes) return make_unexpected(std::string("a \" is not closed"));
  return words;
}

tl::expected<Command, std::string> parse_command(std::string_view text) {
  if (text.size() > kMaxCommand) {
    return make_unexpected("a command has at most 4096 bytes, this one " +
                           std::to_string(text.size()));
  }
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  if (text.find('\n') != std::string_view::npos) {
    return make_unexpected(
        std::string("one command a write: there is a second line, so nothing was done"));
  }
  const auto words = split_words(text);
  if (!words) return make_unexpected(words.error());
  if (words->empty())
    return make_unexpected(std::string("an empty command; for example EX timeout=5s"));
  if (auto alone = parse_alone(*words)) return *alone;
  const std::string& first = words->front();
  if (same_word(first, "SLOT")) return parse_acquire(*words, {Mode::kCW, 0}, true);
  if (const auto mode = parse_mode(first)) return parse_acquire(*words, {*mode, 0}, false);
  return make_unexpected(
      "unknown mode " + as_said(first) +
      "; the first word is NL CR CW PR PW EX shared exclusive SLOT UN renew or resume");
}

}  // namespace lockfs
