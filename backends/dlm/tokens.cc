// SPDX-License-Identifier: MIT
#include "backends/dlm/tokens.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <utility>

namespace lockfs::dlm {
namespace {

constexpr uint64_t kTimeBits = 40;
constexpr uint64_t kMilliseconds2020 = 1577836800000;

// The same on all nodes: FNV-1a.
size_t counter_of(std::string_view name) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  return (hash ^ hash >> 32) % Tokens::kCounters;
}

uint64_t number_in(const LockValue& value) {
  uint64_t number = 0;
  for (size_t i = 0; i < sizeof number; ++i) number |= uint64_t{value.bytes.at(i)} << (8 * i);
  return number;
}

LockValue value_with(uint64_t number) {
  LockValue value;
  for (size_t i = 0; i < sizeof number; ++i) {
    value.bytes.at(i) = static_cast<uint8_t>(number >> (8 * i));
  }
  return value;
}

}  // namespace

uint64_t Tokens::base(uint64_t ring_sequence, uint64_t milliseconds) {
  const uint64_t since = milliseconds > kMilliseconds2020 ? milliseconds - kMilliseconds2020 : 0;
  return ring_sequence << kTimeBits | (since & ((uint64_t{1} << kTimeBits) - 1));
}

// Its resource begins with a NUL, which no file's name has.
Tokens::Counter& Tokens::counter(const std::string& space, std::string_view name) {
  using namespace std::string_literals;
  const std::string resource = "\0lockfs-token-"s + std::to_string(counter_of(name));
  const auto [it, made] = counters_.try_emplace(space + '\0' + resource);
  if (made) {
    it->second.space = space;
    it->second.resource = resource;
  }
  return it->second;
}

void Tokens::next(const std::string& space, std::string_view name, Given given) {
  Counter& from = counter(space, name);
  if (from.here && from.sure && !from.asking) return given(++from.last);
  from.waiting.push_back(std::move(given));
  if (from.asking) return;
  from.asking = true;
  if (from.here) return verbs_.ask_ring_sequence(from.no);
  if (from.no == LockNo::kNone) {
    from.no = verbs_.new_number();
    by_number_[from.no] = &from;
  }
  verbs_.acquire(from.no, from.space, from.resource, Mode::kEX, std::nullopt);
}

bool Tokens::granted(LockNo no, Mode mode, const LockValue& value) {
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return false;
  Counter& counter = *found->second;
  counter.asking = false;
  counter.here = mode == Mode::kEX;
  if (!counter.here) {
    if (counter.waiting.empty()) return true;
    counter.asking = true;
    verbs_.acquire(no, counter.space, counter.resource, Mode::kEX, std::nullopt);
    return true;
  }
  counter.last = number_in(value);
  counter.sure = value.valid && counter.last != 0;
  if (counter.sure) {
    serve(counter);
  } else {
    counter.asking = true;
    verbs_.ask_ring_sequence(no);
  }
  return true;
}

void Tokens::started(LockNo no, uint64_t ring_sequence) {
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Counter& counter = *found->second;
  counter.asking = false;
  if (ring_sequence == 0) return fail(counter);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  counter.last = std::max(counter.last, base(ring_sequence, static_cast<uint64_t>(ms)));
  counter.sure = true;
  serve(counter);
}

// Gives tokens to all who wait, then the counter to another node that waits for it.
void Tokens::serve(Counter& counter) {
  for (const Given& given : std::exchange(counter.waiting, {})) given(++counter.last);
  if (counter.wanted) give_up(counter);
}

void Tokens::give_up(Counter& counter) {
  if (!counter.here || counter.asking || !counter.waiting.empty()) return;
  counter.here = false;
  counter.wanted = false;
  counter.asking = true;
  std::optional<LockValue> last;
  if (counter.sure) last = value_with(counter.last);
  verbs_.acquire(counter.no, counter.space, counter.resource, Mode::kNL, last);
}

void Tokens::hand_over(const std::string& space, std::string_view name) {
  give_up(counter(space, name));
}

bool Tokens::blocking(LockNo no) {
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return false;
  Counter& counter = *found->second;
  counter.wanted = true;
  give_up(counter);
  return true;
}

bool Tokens::refused(LockNo no) {
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return false;
  found->second->asking = false;
  fail(*found->second);
  return true;
}

void Tokens::fail(Counter& counter) {
  for (const Given& given : std::exchange(counter.waiting, {})) given(0);
  if (counter.wanted) give_up(counter);
}

void Tokens::forget(const std::string& space) {
  std::vector<std::string> gone;
  for (auto& [key, counter] : counters_) {
    if (counter.space == space) gone.push_back(key);
  }
  for (const std::string& key : gone) {
    Counter counter = std::move(counters_.at(key));
    by_number_.erase(counter.no);
    counters_.erase(key);
    fail(counter);
  }
}

}  // namespace lockfs::dlm
