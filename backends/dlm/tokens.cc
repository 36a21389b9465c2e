// SPDX-License-Identifier: MIT
#include "backends/dlm/tokens.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "backends/key_values.h"

namespace lockfs::dlm {
namespace {

// Units of 8 us: no lock is granted 125,000 times a second through a mount. 46 bits last 17 years
// from 2026 before they carry into the membership's, which does no harm but to reading.
constexpr uint64_t kTimeBits = 46;
constexpr uint64_t kUnit = 8;
constexpr uint64_t kMicroseconds2026 = 1767225600000000;

// The same on all nodes.
size_t counter_of(std::string_view name) {
  const uint64_t hash = text_checksum(name);
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

uint64_t Tokens::base(uint64_t ring_sequence, uint64_t microseconds) {
  const uint64_t units = (std::max(microseconds, kMicroseconds2026) - kMicroseconds2026) / kUnit;
  return (ring_sequence / 4 << kTimeBits) + units;
}

// Its resource begins with a NUL, which no file's name has.
Tokens::Counters& Tokens::counters(std::string_view space) {
  using namespace std::string_literals;
  auto found = spaces_.find(space);
  if (found == spaces_.end()) {
    found = spaces_.emplace(space, std::make_unique<Counters>()).first;
    for (size_t i = 0; i < kCounters; ++i) {
      found->second->at(i).space = &found->first;
      found->second->at(i).resource = "\0lockfs-token-"s + std::to_string(i);
    }
  }
  return *found->second;
}

Tokens::Counter& Tokens::counter(std::string_view space, std::string_view name) {
  return counters(space).at(counter_of(name));
}

uint64_t Tokens::take(std::string_view space, std::string_view name) {
  Counter& from = counter(space, name);
  if (!from.here || !from.sure || from.asking) return 0;
  if (from.last >= from.floor + kReserve / 2) {
    raise(from);
    return 0;
  }
  return give(from);
}

uint64_t Tokens::give(Counter& counter) {
  counter.used = verbs_.now();
  return ++counter.last;
}

void Tokens::next(std::string_view space, std::string_view name, Given given) {
  if (const uint64_t token = take(space, name)) return given(token);
  Counter& from = counter(space, name);
  from.waiting.push_back(std::move(given));
  if (from.asking) return;
  if (from.here) {  // Corosync did not answer when it came.
    from.asking = true;
    return verbs_.ask_ring_sequence(from.no);
  }
  if (from.no == LockNo::kNone) {
    from.no = verbs_.new_number();
    by_number_[from.no] = &from;
  }
  convert(from, Mode::kEX);
}

// Stores the last token with it, where it is sure. Where that is in doubt, whoever is next begins
// as with a new one: what is stored may be less than what was given here.
void Tokens::convert(Counter& counter, Mode mode) {
  counter.asking = true;
  std::optional<LockValue> last;
  if (counter.here && counter.sure) last = value_with(counter.last);
  if (counter.here && counter.doubted) last = value_with(0);
  verbs_.acquire(counter.no, *counter.space, counter.resource, mode, last);
}

bool Tokens::granted(LockNo no, Mode mode, const LockValue& value) {
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return false;
  Counter& counter = *found->second;
  counter.asking = false;
  const bool was_here = std::exchange(counter.here, mode == Mode::kEX);
  if (!counter.here) {
    counter.sure = counter.doubted = false;
    if (!counter.waiting.empty()) convert(counter, Mode::kEX);
    return true;
  }
  if (!was_here) {
    counter.used = verbs_.now();
    counter.last = number_in(value);
    counter.sure = value.valid && counter.last != 0;
  }
  if (counter.sure) {
    // It may come from far above its floor.
    was_here || counter.last < counter.floor + kReserve / 2 ? serve(counter) : raise(counter);
  } else {
    if (!value.valid) counter.last += kReserve;
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
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  counter.last = std::max(counter.last, base(ring_sequence, static_cast<uint64_t>(us)));
  if (counter.floor != 0) counter.last = std::max(counter.last, counter.floor + kReserve);
  counter.sure = true;
  counter.doubted = false;
  raise(counter);
}

// All are to know how far it has come, then it is stored, then it goes on.
void Tokens::raise(Counter& counter) {
  counter.asking = true;
  counter.announcing = true;
  const auto number = &counter - counters(*counter.space).data();
  verbs_.announce(*counter.space, static_cast<size_t>(number), counter.last);
}

void Tokens::floor(std::string_view space, size_t number, uint64_t token, bool own) {
  if (number >= kCounters) return;
  Counter& counter = counters(space).at(number);
  counter.floor = std::max(counter.floor, token);
  if (!own || !counter.announcing || token != counter.last) return;
  counter.announcing = false;
  convert(counter, Mode::kEX);
}

std::vector<std::pair<size_t, uint64_t>> Tokens::floors(std::string_view space) {
  std::vector<std::pair<size_t, uint64_t>> out;
  size_t number = 0;
  for (const Counter& counter : counters(space)) {
    if (counter.floor != 0) out.emplace_back(number, counter.floor);
    ++number;
  }
  return out;
}

void Tokens::cut_off(std::string_view space) {
  for (Counter& counter : counters(space)) {
    if (!std::exchange(counter.announcing, false)) continue;
    counter.asking = false;
    distrust(counter);
    fail(counter);
  }
}

// Gives tokens to all who wait, then the counter to another node that waits for it.
void Tokens::serve(Counter& counter) {
  // Who is served may release another lock of this counter: it does not go before all are served.
  while (!counter.waiting.empty() && counter.here && !counter.asking) {
    const Given given = std::move(counter.waiting.front());
    counter.waiting.erase(counter.waiting.begin());
    given(give(counter));
  }
  if (counter.wanted) give_up(counter);
}

void Tokens::doubt() {
  for (auto& [name, counters] : spaces_) {
    for (Counter& counter : *counters) distrust(counter);
  }
}

void Tokens::distrust(Counter& counter) {
  counter.doubted = counter.doubted || (counter.here && counter.sure);
  counter.sure = false;
}

std::optional<TimePoint> Tokens::expire(Duration unused) {
  const TimePoint now = verbs_.now();
  std::optional<TimePoint> next;
  for (auto& [name, counters] : spaces_) {
    for (Counter& counter : *counters) {
      if (counter.here && counter.used + unused <= now) give_up(counter);
      if (!counter.here) continue;
      // What could not be handed over just now is in use.
      const TimePoint due = counter.used + unused > now ? counter.used + unused : now + unused;
      next = next ? std::min(*next, due) : due;
    }
  }
  return next;
}

void Tokens::give_up(Counter& counter) {
  if (!counter.here || counter.asking || !counter.waiting.empty()) return;
  counter.wanted = false;
  convert(counter, Mode::kNL);
}

void Tokens::hand_over(std::string_view space, std::string_view name) {
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

void Tokens::leave(std::string_view space) {
  const auto found = spaces_.find(space);
  if (found == spaces_.end()) return;
  const std::unique_ptr<Counters> counters = std::move(found->second);
  for (Counter& counter : *counters) {
    by_number_.erase(counter.no);
    if (counter.here && !counter.asking) convert(counter, Mode::kNL);
  }
  spaces_.erase(found);
  for (Counter& counter : *counters) {
    for (const Given& given : std::exchange(counter.waiting, {})) given(0);
  }
}

void Tokens::leave_all() {
  while (!spaces_.empty()) leave(std::string(spaces_.begin()->first));
}

}  // namespace lockfs::dlm
