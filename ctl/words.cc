// SPDX-License-Identifier: MIT
#include "ctl/words.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <cwchar>

namespace lockfs::ctl {
namespace {

// One character of UTF-8: its code and how many bytes it has; no bytes if it is none.
struct Character {
  char32_t code = 0;
  size_t bytes = 0;
};

Character first_of(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {};
  char32_t code = lead & (0x7fU >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0U) != 0x80) return {};
    code = code << 6 | (next & 0x3fU);
  }
  constexpr std::array<char32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  if (code < kLeast.at(bytes) || code > 0x10ffff || surrogate) return {};
  return {code, bytes};
}

bool is_harmless(char32_t code) {
  if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return false;
  const bool line = code == 0x2028 || code == 0x2029;
  const bool turns = code == 0x61c || code == 0x200e || code == 0x200f ||
                     (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  return !line && !turns;
}

size_t columns_of(char32_t code) {
  const int columns = wcwidth(static_cast<wchar_t>(code));
  return columns < 0 ? 1 : static_cast<size_t>(columns);
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Character c = first_of(text);
    const size_t bytes = c.bytes == 0 ? 1 : c.bytes;
    if (c.bytes != 0 && is_harmless(c.code)) {
      out += text.substr(0, bytes);
    } else if (c.bytes <= 1) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    } else {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.code));
    }
    text.remove_prefix(bytes);
  }
  return out;
}

size_t columns_of(std::string_view text) {
  size_t columns = 0;
  while (!text.empty()) {
    const Character c = first_of(text);
    columns += columns_of(c.code);
    text.remove_prefix(c.bytes == 0 ? 1 : c.bytes);
  }
  return columns;
}

std::string cut(std::string_view text, size_t columns) {
  size_t end = 0;
  while (end < text.size()) {
    const Character c = first_of(text.substr(end));
    const size_t wide = columns_of(c.code);
    if (wide > columns) break;
    columns -= wide;
    end += c.bytes == 0 ? 1 : c.bytes;
  }
  return std::string(text.substr(0, end));
}

std::string duration_in_words(double seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
  return fmt::format("{} d {} h", whole / 86400, whole / 3600 % 24);
}

std::string time_in_words(const std::string& utc) {
  std::tm parts{};
  if (strptime(utc.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr) return printable(utc);
  const std::time_t when = timegm(&parts);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  std::tm today{};
  localtime_r(&when, &local);
  localtime_r(&now, &today);
  const bool is_today = local.tm_yday == today.tm_yday && local.tm_year == today.tm_year;
  std::array<char, 64> text{};
  const size_t n =
      std::strftime(text.data(), text.size(), is_today ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &local);
  return {text.data(), n};
}

std::string process_in_words(pid_t pid, const std::string& comm) {
  if (pid == 0) return comm.empty() ? "a process out of sight" : printable(comm) + ", out of sight";
  if (comm.empty()) return fmt::format("pid {}", pid);
  return fmt::format("pid {} ({})", pid, printable(comm));
}

std::string in_quotes(std::string_view word) {
  std::string out = "\"";
  for (const char c : word) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

Style Style::of(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool wanted = no_color == nullptr || *no_color == '\0';
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  return Style(wanted && !dumb && isatty(fd) == 1);
}

std::string Style::with(const char* code, const std::string& text) const {
  if (!colours_ || text.empty()) return text;
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

}  // namespace lockfs::ctl
