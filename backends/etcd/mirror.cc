// SPDX-License-Identifier: MIT
#include "backends/etcd/mirror.h"

#include <algorithm>
#include <utility>

#include "backends/key_values.h"

namespace lockfs::etcd {

Entry entry_of(const wire::KeyValue& key, std::string_view owner) {
  Entry entry;
  entry.owner = owner;
  entry.create = key.create_revision();
  entry.mod = key.mod_revision();
  read_value(key.value(), entry);
  return entry;
}

KeyOfLock split_key(std::string_view rest) {
  const size_t slash = rest.rfind('/');
  if (slash == std::string_view::npos) return {};
  return {rest.substr(0, slash), rest.substr(slash + 1)};
}

const Mirror::Space* Mirror::find(std::string_view space) const {
  const auto found = spaces_.find(space);
  return found == spaces_.end() ? nullptr : &found->second;
}

bool Mirror::knows(std::string_view space) const {
  const Space* found = find(space);
  return found != nullptr && found->loaded;
}

void Mirror::forget(const std::string& space) {
  const auto known = spaces_.find(space);
  if (known == spaces_.end()) return;
  by_watch_.erase(known->second.number);
  by_watch_.erase(known->second.number + 1);
  spaces_.erase(known);
}

bool Mirror::expect(const std::string& space) { return spaces_.try_emplace(space).second; }

void Mirror::load(const std::string& space, const wire::RangeResponse& locks,
                  const wire::RangeResponse& pins, int64_t revision) {
  Space& known = spaces_[space];
  known.loaded = true;
  known.revision = revision;
  known.locks.clear();
  known.number = last_watch_ + 1;
  last_watch_ += 2;  // Its locks, its pins.
  by_watch_[known.number] = space;
  by_watch_[known.number + 1] = space;
  const size_t skip = keys_.space(space).size();
  for (const wire::KeyValue& key : locks.kvs()) {
    const KeyOfLock of = split_key(std::string_view(key.key()).substr(skip));
    if (!of.name.empty()) known.locks[std::string(of.name)].queue.put(entry_of(key, of.owner));
  }
  const size_t skip_pins = keys_.pins(space).size();
  for (const wire::KeyValue& key : pins.kvs()) {
    known.locks[key.key().substr(skip_pins)].pin = pin_of(key_values(key.value()));
  }
}

int64_t Mirror::watch_of(std::string_view space) const {
  const Space* found = find(space);
  return found == nullptr ? 0 : found->number;
}

void Mirror::apply(const wire::WatchResponse& response,
                   const std::function<void(const Change&)>& changed) {
  const auto watch = by_watch_.find(response.watch_id());
  if (watch == by_watch_.end()) return;
  const std::string space = watch->second;
  const auto known = spaces_.find(space);
  if (known == spaces_.end() || !known->second.loaded) return;
  const bool locks = known->second.number == response.watch_id();
  if (!locks && known->second.number + 1 != response.watch_id()) return;
  const size_t skip = (locks ? keys_.space(space) : keys_.pins(space)).size();
  // All of it first: several keys may have been changed by one revision. A member that was behind
  // may tell again what is known (etcd before 3.4.25).
  std::vector<Change> changes;
  const int64_t before = known->second.revision;
  for (const wire::Event& event : response.events()) {
    if (locks && event.kv().mod_revision() <= before) continue;
    if (!locks) {
      pinned(known->second, event, skip);
      continue;
    }
    if (const auto& reading = known->second.reading;
        reading && event.kv().mod_revision() > reading->revision) {
      compare_now(known->second);
    }
    known->second.revision = std::max(known->second.revision, event.kv().mod_revision());
    const KeyOfLock of = split_key(std::string_view(event.kv().key()).substr(skip));
    if (of.name.empty()) continue;
    changes.push_back(
        {space, of.name, entry_of(event.kv(), of.owner), event.type() == wire::Event::DELETE});
    Queue& queue = known->second.locks[std::string(of.name)].queue;
    changes.back().gone ? queue.erase(of.owner) : queue.put(changes.back().entry);
  }
  for (const Change& change : changes) {
    changed(change);
    const auto still = spaces_.find(space);
    if (still == spaces_.end()) return;
    if (change.gone) collect(still->second, change.name);
  }
}

void Mirror::pinned(Space& space, const wire::Event& event, size_t skip) {
  const std::string name = event.kv().key().substr(skip);
  if (event.type() == wire::Event::DELETE) {
    const auto found = space.locks.find(name);
    if (found == space.locks.end()) return;
    found->second.pin.reset();
    return collect(space, name);
  }
  space.locks[name].pin = pin_of(key_values(event.kv().value()));
}

void Mirror::collect(Space& space, std::string_view name) {
  const auto found = space.locks.find(name);
  if (found == space.locks.end() || found->second.pin || !found->second.queue.empty()) return;
  space.locks.erase(found);
}

const Queue* Mirror::queue(std::string_view space, std::string_view name) const {
  const Space* known = find(space);
  if (known == nullptr) return nullptr;
  const auto found = known->locks.find(name);
  return found == known->locks.end() ? nullptr : &found->second.queue;
}

const Entry* Mirror::entry(std::string_view space, std::string_view name,
                           std::string_view owner) const {
  const Queue* keys = queue(space, name);
  return keys == nullptr ? nullptr : keys->find(owner);
}

int64_t Mirror::revision(std::string_view space) const {
  const Space* known = find(space);
  return known == nullptr || !known->loaded ? 0 : known->revision;
}

bool Mirror::lacks(std::string_view space, std::string_view name, const Queue& now,
                   int64_t revision) const {
  const int64_t known = this->revision(space);
  if (known > revision) return false;  // What is missing may be gone since.
  const Queue nobody;
  const Queue* here = queue(space, name);
  return (here == nullptr ? nobody : *here).lacks(now, known);
}

bool Mirror::compare(const std::string& space, Reading reading) {
  const auto known = spaces_.find(space);
  if (known == spaces_.end() || known->second.revision > reading.revision) return false;
  known->second.reading = std::move(reading);
  return true;
}

bool Mirror::differs(const std::string& space) {
  const auto known = spaces_.find(space);
  if (known == spaces_.end()) return false;
  if (known->second.reading) compare_now(known->second);
  return known->second.wrong;
}

void Mirror::compare_now(Space& space) {
  const Reading reading = *std::exchange(space.reading, std::nullopt);
  size_t here = 0;
  for (const auto& [name, lock] : space.locks) {
    for (const auto& [place, entry] : lock.queue.entries()) {
      const std::string key = name + "/" + entry.owner;
      if (key < reading.from || (!reading.to.empty() && key >= reading.to)) continue;
      const auto there = reading.keys.find(key);
      if (there == reading.keys.end() || there->second != entry.mod) space.wrong = true;
      ++here;
    }
  }
  if (here != reading.keys.size()) space.wrong = true;
}

std::vector<std::string> Mirror::of_owner(std::string_view space, std::string_view owner) const {
  std::vector<std::string> out;
  const Space* known = find(space);
  if (known == nullptr) return out;
  for (const auto& [name, lock] : known->locks) {
    if (lock.queue.find(owner) != nullptr) out.push_back(name);
  }
  return out;
}

void Mirror::set_pin(std::string_view space, std::string_view name, const std::optional<Pin>& pin) {
  const auto known = spaces_.find(space);
  if (known == spaces_.end() || !known->second.loaded) return;
  known->second.locks[std::string(name)].pin = pin;
  if (!pin) collect(known->second, name);
}

RemoteLock Mirror::shown(std::string_view space, const std::string& name, const Lock& lock,
                         std::string_view self) const {
  return {name, lock.pin, lock.queue.claims(self, keys_.lock(space, name))};
}

std::vector<RemoteLock> Mirror::of(std::string_view space, std::string_view name,
                                   std::string_view self) const {
  std::vector<RemoteLock> out;
  const Space* known = find(space);
  if (known == nullptr) return out;
  const auto found = known->locks.find(name);
  if (found == known->locks.end()) return out;
  RemoteLock lock = shown(space, found->first, found->second, self);
  if (lock.pin || !lock.claims.empty()) out.push_back(std::move(lock));
  return out;
}

std::vector<RemoteLock> Mirror::all(std::string_view space, std::string_view self) const {
  std::vector<RemoteLock> out;
  const Space* known = find(space);
  if (known == nullptr) return out;
  for (const auto& [name, entry] : known->locks) {
    RemoteLock lock = shown(space, name, entry, self);
    if (lock.pin || !lock.claims.empty()) out.push_back(std::move(lock));
  }
  return out;
}

}  // namespace lockfs::etcd
