// SPDX-License-Identifier: MIT
#include "backends/file/lock_text.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>

#include "backends/key_values.h"

namespace lockfs {
namespace {

constexpr std::string_view kFirst =
    "lockfs 1: locks of this file are held by the kernel, not by it";
constexpr int kTokenLine = 1;
constexpr int kPinLine = 3;
constexpr int kHeadLines = 5;
constexpr size_t kSumLength = 17;  // A blank and 16 digits.

off_t offset_of_line(int line) { return static_cast<off_t>(line) * off_t{LockText::kLine}; }
off_t offset_of_slot(size_t slot) {
  return offset_of_line(kHeadLines) + static_cast<off_t>(slot * LockText::kSlotLine);
}

bool write_at(int fd, std::string_view text, off_t offset) {
  const ssize_t n = pwrite(fd, text.data(), text.size(), offset);
  if (n >= 0 && n < static_cast<ssize_t>(text.size())) errno = ENOSPC;
  return n == static_cast<ssize_t>(text.size());
}

std::string read_at(int fd, size_t size, off_t offset) {
  std::string text(size, '\0');
  const ssize_t n = pread(fd, text.data(), size, offset);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

Mode mode_of(const KeyValues& words, const char* key) {
  const auto found = words.find(key);
  return found != words.end() ? parse_mode(found->second).value_or(Mode::kNL) : Mode::kNL;
}

}  // namespace

std::string text_line(std::string_view words, size_t length) {
  std::string line(words.substr(0, length - kSumLength - 1));
  line.resize(length - kSumLength - 1, ' ');
  line += fmt::format(" {:016x}\n", text_checksum(line));
  return line;
}

std::optional<std::string_view> line_words(std::string_view line) {
  if (line.size() <= kSumLength + 1 || line.back() != '\n') return std::nullopt;
  const std::string_view padded = line.substr(0, line.size() - kSumLength - 1);
  const std::string_view sum = line.substr(padded.size(), kSumLength);
  if (sum != fmt::format(" {:016x}", text_checksum(padded))) return std::nullopt;
  const size_t end = padded.find_last_not_of(' ');
  return padded.substr(0, end == std::string_view::npos ? 0 : end + 1);
}

// Of the two lines the whole one with the higher sequence.
std::optional<LockText::Numbered> LockText::newest(int first_line) const {
  const std::string both = read_at(fd_, 2 * kLine, offset_of_line(first_line));
  std::optional<Numbered> best;
  for (int i = 0; i < 2; ++i) {
    const auto start = static_cast<size_t>(i) * kLine;
    if (both.size() < start + kLine) break;
    const auto words = line_words(std::string_view(both).substr(start, kLine));
    const size_t blank = words ? words->find(' ') : std::string_view::npos;
    if (blank == std::string_view::npos) continue;
    Numbered line{std::string(words->substr(blank + 1)), 0, first_line + i};
    std::from_chars(words->data(), words->data() + blank, line.sequence);
    if (!best || line.sequence > best->sequence) best = line;
  }
  return best;
}

bool LockText::write_newer(int first_line, const std::string& words) {
  const auto old = newest(first_line);
  const int line = old && old->line == first_line ? first_line + 1 : first_line;
  const uint64_t sequence = old ? old->sequence + 1 : 1;
  if (!old) touch();
  return write_at(fd_, text_line(fmt::format("{} {}", sequence, words), kLine),
                  offset_of_line(line));
}

TokenBlock LockText::next_tokens() {
  uint64_t last = 0;
  if (const auto line = newest(kTokenLine)) {
    last = number_of<uint64_t>(key_values(line->words), "token");
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  const TokenBlock block{std::max(last + 1, micros), std::max(last + 1, micros) + kTokens};
  const bool written = write_newer(kTokenLine, fmt::format("token={}", block.end - 1));
  return written ? block : TokenBlock{};
}

std::optional<Pin> LockText::pin() const {
  const auto line = newest(kPinLine);
  if (!line || !line->words.starts_with("pin ")) return std::nullopt;
  const auto words = key_values(line->words);
  return Pin{number_of<uid_t>(words, "uid"), number_of<uint16_t>(words, "mode"),
             number_of<int>(words, "allocated") != 0};
}

bool LockText::write_pin(const std::optional<Pin>& pin) {
  if (!pin) return write_newer(kPinLine, "unpinned");
  return write_newer(kPinLine, fmt::format("pin uid={} mode={} allocated={}", pin->uid, pin->mode,
                                           pin->allocated ? 1 : 0));
}

bool LockText::write_slot(size_t slot, const SlotText& text) {
  const std::string words =
      fmt::format("claim node={} held={} wants={} first={} {}", text.node, mode_name(text.held),
                  mode_name(text.wants), text.token, presence_words(text.who));
  return write_at(fd_, text_line(words, kSlotLine), offset_of_slot(slot));
}

bool LockText::clear_slot(size_t slot) {
  return write_at(fd_, text_line("free", kSlotLine), offset_of_slot(slot));
}

std::vector<std::pair<size_t, SlotText>> LockText::slots() const {
  std::vector<std::pair<size_t, SlotText>> out;
  struct stat attr {};
  if (fstat(fd_, &attr) != 0 || attr.st_size <= offset_of_slot(0)) return out;
  const auto size = static_cast<size_t>(attr.st_size - offset_of_slot(0));
  const std::string text = read_at(fd_, std::min(size, kSlots * kSlotLine), offset_of_slot(0));
  for (size_t i = 0; (i + 1) * kSlotLine <= text.size(); ++i) {
    const auto line = line_words(std::string_view(text).substr(i * kSlotLine, kSlotLine));
    if (!line || !line->starts_with("claim ")) continue;
    const auto words = key_values(*line);
    SlotText slot;
    slot.node = value_of(words, "node");
    slot.held = mode_of(words, "held");
    slot.wants = mode_of(words, "wants");
    slot.token = number_of<uint64_t>(words, "first");
    slot.who = presence_of(words);
    out.emplace_back(i, std::move(slot));
  }
  return out;
}

void LockText::touch() { write_at(fd_, text_line(kFirst, kLine), 0); }

}  // namespace lockfs
