// SPDX-License-Identifier: MIT
// Any bytes as a mode string, as a command's words and as a name: an accepted command is within its
// limits, a refusal says something that a terminal can show.
#include <cstdio>
#include <cstdlib>

#include "core/lock_name.h"
#include "fs/command.h"

namespace lockfs {
namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void look_at_refusal(const std::string& words) {
  expect(!words.empty(), "a refusal without words");
  expect(words.size() < 400, "a refusal longer than anybody reads");
  for (const char c : words) {
    expect(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a control character in a refusal");
  }
}

void look_at_duration(const std::optional<Duration>& duration, Duration least) {
  if (duration) expect(*duration >= least && *duration <= kMaxDuration, "a duration out of bounds");
}

void look_at_request(const Request& request) {
  constexpr auto kLeast = std::chrono::milliseconds(1);
  look_at_duration(request.timeout, Duration::zero());
  look_at_duration(request.ttl, kLeast);
  look_at_duration(request.linger, kLeast);
  expect(!(request.now && request.timeout), "try with a timeout");
  expect(request.want.slots <= 1000000000, "too many slots");
  expect(static_cast<size_t>(request.want.mode) < kModeCount, "a mode that is none");
  for (const char c : request.note) {
    expect(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a control character in a note");
  }
}

void try_command(std::string_view text) {
  const auto command = parse_command(text);
  if (!command) return look_at_refusal(command.error());
  expect(text.size() <= kMaxCommand, "too long a command");
  expect(command->onlost >= 0 && command->onlost < 32, "a signal that is none");
  look_at_duration(command->ttl, std::chrono::milliseconds(1));
  if (command->verb == Command::Verb::kAcquire) look_at_request(command->request);
  if (command->verb != Command::Verb::kAcquire) expect(command->onlost == 0, "onlost alone");
}

void try_words(std::string_view text) {
  const auto words = split_words(text);
  if (!words) return look_at_refusal(words.error());
  // Written with quotes around each, they are the same words.
  std::string quoted;
  for (const std::string& word : *words) {
    quoted += '"';
    for (const char c : word)
      quoted += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
    quoted += "\" ";
  }
  expect(split_words(quoted) == words, "quoted words are others");
}

void try_name(std::string_view text) {
  expect(lock_name(file_name(text)) == text, "a file name does not lead back to its lock");
  expect(file_name(text).find('/') == std::string::npos, "a slash in a file name");
  expect(lock_name(text).size() <= text.size(), "a lock's name longer than its file's");
}

}  // namespace
}  // namespace lockfs

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  lockfs::try_command(text);
  lockfs::try_words(text);
  lockfs::try_name(text);
  return 0;
}
