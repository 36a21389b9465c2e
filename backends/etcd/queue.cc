// SPDX-License-Identifier: MIT
#include "backends/etcd/queue.h"

#include <algorithm>
#include <array>
#include <utility>

#include "backends/conversion_deadlock.h"
#include "backends/key_values.h"

namespace lockfs::etcd {
namespace {

constexpr std::string_view kOurs = "lockfs ";
constexpr std::string_view kConverted = "converted";

// The next word of a text that blanks divide; it is taken from there.
std::string_view next_word(std::string_view& text) {
  const size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

}  // namespace

std::string value_of(const Entry& entry) {
  std::string out = std::string(kOurs) + std::string(mode_name(entry.mode)) + " " +
                    std::string(entry.to ? mode_name(*entry.to) : "-");
  if (entry.converted) out += " " + std::string(kConverted);
  if (!entry.words.empty()) out += " " + entry.words;
  return out;
}

void read_value(std::string_view value, Entry& entry) {
  entry.foreign = true;
  entry.mode = Mode::kEX;
  entry.to.reset();
  entry.converted = false;
  entry.words.clear();
  if (!value.starts_with(kOurs)) return;
  value.remove_prefix(kOurs.size());
  const auto mode = parse_mode(next_word(value));
  const auto to = next_word(value);
  if (!mode || *mode == Mode::kNL) return;
  entry.foreign = false;
  entry.mode = *mode;
  entry.to = parse_mode(to);
  entry.converted = value == kConverted || value.starts_with(std::string(kConverted) + " ");
  if (entry.converted) next_word(value);
  entry.words = value;
}

void Queue::put(Entry entry) {
  erase(entry.owner);
  const Place place = place_of(entry);
  by_owner_[entry.owner] = entry.create;
  if (entry.converted) converted_.insert(place);
  entries_[place] = std::move(entry);
}

void Queue::erase(std::string_view owner) {
  const auto found = by_owner_.find(std::string(owner));
  if (found == by_owner_.end()) return;
  const Place place{found->second, owner};
  entries_.erase(place);
  converted_.erase(place);
  by_owner_.erase(found);
}

const Entry* Queue::find(std::string_view owner) const {
  const auto found = by_owner_.find(std::string(owner));
  return found == by_owner_.end() ? nullptr : &entries_.at({found->second, std::string(owner)});
}

bool Queue::stands_before(const Entry& one, const Entry& other) {
  if (other.converted) return false;
  const bool before =
      one.create != other.create ? one.create < other.create : one.owner < other.owner;
  if (!before && (!one.converted || one.owner == other.owner)) return false;
  if (!compatible(one.mode, other.mode)) return true;
  return before && one.to && other.create > one.mod && !compatible(*one.to, other.mode);
}

const Entry* Queue::blocker(const Entry& entry) const {
  for (const Place& place : converted_) {
    const Entry& one = entries_.at(place);
    if (stands_before(one, entry)) return &one;
  }
  for (auto before = entries_.lower_bound(place_of(entry)); before != entries_.begin();) {
    const Entry& one = (--before)->second;
    if (stands_before(one, entry)) return &one;
  }
  return nullptr;
}

// Of all who wait for the same mode it is the same one: so guards are few.
const Entry* Queue::first_blocker(const Entry& entry) const {
  for (const Place& place : converted_) {
    const Entry& one = entries_.at(place);
    if (stands_before(one, entry)) return &one;
  }
  for (const auto& [place, one] : entries_) {
    if (place >= place_of(entry)) break;
    if (stands_before(one, entry)) return &one;
  }
  return nullptr;
}

Queue::Conversion Queue::convertible(const Entry& entry, Mode to) const {
  Conversion out;
  bool must_wait = false;
  std::vector<lockfs::Conversion> rivals;
  for (const auto& [place, other] : entries_) {
    if (other.owner == entry.owner) continue;
    const bool asked_before = other.to && (!entry.to || other.mod < entry.mod);
    if (asked_before) rivals.push_back({other.mode, *other.to});
    if (compatible(other.mode, to) || stands_before(entry, other)) continue;
    // It does not stand in our way if it waits for somebody else, as long as it does.
    const Entry* first = first_blocker(other);
    if (first == nullptr) {
      must_wait = true;
    } else if (std::find(out.guards.begin(), out.guards.end(), first) == out.guards.end()) {
      out.guards.push_back(first);
    }
  }
  if (!must_wait) {
    out.turn = Turn::kNow;
  } else if (conversions_deadlock({entry.mode, to}, rivals)) {
    out.turn = Turn::kDeadlock;
  }
  return out;
}

bool Queue::lacks(const Queue& now, int64_t known) const {
  return std::any_of(now.entries_.begin(), now.entries_.end(), [this, known](const auto& item) {
    const Entry* here = find(item.second.owner);
    return item.second.mod <= known && (here == nullptr || here->mod != item.second.mod);
  });
}

// Whoever goes not with what is granted waits for it.
bool Queue::wanted(const Entry& entry) const {
  return std::any_of(entries_.begin(), entries_.end(), [&entry](const auto& item) {
    const Entry& other = item.second;
    if (other.owner == entry.owner) return false;
    return !compatible(other.mode, entry.mode) || (other.to && !compatible(*other.to, entry.mode));
  });
}

// In one pass: what stands before a key are the modes of those before it, those that ask for more,
// and those that were converted.
std::vector<RemoteClaim> Queue::claims(std::string_view self, std::string_view key) const {
  std::vector<RemoteClaim> out;
  std::array<bool, 6> before{};
  std::vector<const Entry*> special;
  for (const Place& place : converted_) special.push_back(&entries_.at(place));
  for (const auto& [place, entry] : entries_) {
    bool waits = std::any_of(special.begin(), special.end(),
                             [&e = entry](const Entry* one) { return stands_before(*one, e); });
    for (size_t m = 0; m < before.size() && !entry.converted; ++m) {
      waits = waits || (before.at(m) && !compatible(static_cast<Mode>(m), entry.mode));
    }
    before.at(static_cast<size_t>(entry.mode)) = true;
    if (entry.to && !entry.converted) special.push_back(&entry);
    if (entry.owner == self) continue;
    RemoteClaim claim;
    claim.mode = entry.mode;
    claim.waiting = waits;
    claim.who = presence_of(key_values(entry.words));
    claim.token = claim.who.token;
    if (entry.foreign) {
      claim.who.note = "etcd key " + std::string(key) + entry.owner;
      claim.token = static_cast<uint64_t>(entry.create);
    }
    out.push_back(claim);
    if (!entry.to) continue;
    claim.mode = *entry.to;
    claim.waiting = true;
    claim.token = 0;
    out.push_back(claim);
  }
  return out;
}

}  // namespace lockfs::etcd
