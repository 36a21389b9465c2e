// SPDX-License-Identifier: MIT
// What the table asks its backends and tells them besides claims: pins, who holds elsewhere, and
// who holds here.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <unordered_set>
#include <utility>

#include "core/lock_table.h"

namespace lockfs {

// The question's id, for the verb; the answer, or the lack of one, comes to `told`.
QueryId LockTable::ask(Told told, Duration patience) {
  auto [id, query] = queries_.emplace();
  query.told = std::move(told);
  query.timer = timers_.schedule(timers_.now() + patience, [this, late = id] {
    queries_.find(late)->timer = TimerId::kNone;
    answered(late, LockErrc::kTimedOut, {});
  });
  return id;
}

void LockTable::answered(QueryId id, LockErrc result, std::vector<RemoteLock> locks) {
  Query* query = queries_.find(id);
  if (query == nullptr) return;  // Later than we wait.
  if (query->timer != TimerId::kNone) timers_.cancel(query->timer);
  const Told told = std::move(query->told);
  queries_.erase(id);
  const Delivery delivery(*this);
  told(result, std::move(locks));
}

void LockTable::end_queries() {
  std::vector<QueryId> open;
  queries_.for_each([&](QueryId id, const Query& /*query*/) { open.push_back(id); });
  for (const QueryId id : open) answered(id, LockErrc::kUnreachable, {});
}

void LockTable::join_lockspace(Lockspace& space, const Done& done) {
  if (!space.backend->traits().joins) return done(LockErrc::kOk);
  const QueryId query =
      ask([done](LockErrc result, const std::vector<RemoteLock>& /*locks*/) { done(result); },
          kJoinTime);
  space.backend->join(query, space.name, space.mode);
}

void LockTable::leave_lockspace(Lockspace& space, bool force, const Done& done) {
  const Delivery delivery(*this);
  if (force) {
    std::vector<std::string> held;
    for (const auto& [name, lock] : space.locks) {
      if (lock.held()) held.push_back(name);
    }
    for (const std::string& name : held) {
      if (Lock* lock = find(space, name)) break_lock(*lock, "its lockspace was left by force");
    }
  }
  struct Left {
    LockBackend& backend;
    std::string name;
    uid_t uid;
    gid_t gid;
    mode_t mode;
    uint64_t capacity;
  };
  const Left left{*space.backend, space.name, space.uid, space.gid, space.mode, space.capacity};
  const LockErrc result = remove_lockspace(space);
  if (result != LockErrc::kOk || !left.backend.traits().joins) return done(result);
  const auto told = [this, left, done](LockErrc answer, const std::vector<RemoteLock>& /*locks*/) {
    if (answer == LockErrc::kBusy && find_lockspace(left.name) == nullptr) {
      Lockspace& back = add_lockspace(left.name, left.backend);
      back.uid = left.uid;
      back.gid = left.gid;
      back.mode = left.mode;
      back.capacity = left.capacity;
    }
    done(answer == LockErrc::kTimedOut ? LockErrc::kOk : answer);
  };
  const QueryId query = ask(told, kJoinTime);
  left.backend.leave(query, left.name, force);
}

void LockTable::set_pin(Lockspace& space, std::string_view name, const std::optional<Pin>& pin) {
  Lock* known = find(space, name);
  if ((known != nullptr ? known->pin : std::nullopt) == pin) return;
  const Delivery delivery(*this);
  Lock& lock = pin ? record(space, name) : *known;
  if (lock.pin) quota.give(lock.pin->uid, Quota::kNames);
  if (pin) quota.add(pin->uid, Quota::kNames);
  lock.pin = pin;
  note_change(lock);
  if (pin) return;
  uint64_t number = 0;
  if (std::from_chars(name.data(), name.data() + name.size(), number).ec == std::errc()) {
    space.lowest_free = std::min(space.lowest_free, number);
  }
  collect(lock);
}

void LockTable::pin(Lockspace& space, std::string_view name, const Pin& pin, bool fresh,
                    const Done& done) {
  const Lock* known = find(space, name);
  const bool has = known != nullptr && known->pin;
  if (!has && !quota.may_take(pin.uid, Quota::kNames)) return done(LockErrc::kLimit);
  if (!space.backend->traits().other_nodes) {
    if (has && fresh) return done(LockErrc::kExists);
    set_pin(space, name, pin);
    return done(LockErrc::kOk);
  }
  const QueryId query = ask([this, id = space.id, name = std::string(name), pin, done](
                                LockErrc result, const std::vector<RemoteLock>& /*locks*/) {
    Lockspace* pinned = find_lockspace(id);
    if (pinned != nullptr && result == LockErrc::kOk) set_pin(*pinned, name, pin);
    done(result);
  });
  space.backend->pin(query, space.name, name, pin, fresh);
}

void LockTable::unpin(Lockspace& space, std::string_view name, const Done& done) {
  const Lock* known = find(space, name);
  if (!space.backend->traits().other_nodes) {
    if (known == nullptr || !known->pin) return done(LockErrc::kNotFound);
    set_pin(space, std::string(name), std::nullopt);
    return done(LockErrc::kOk);
  }
  const QueryId query = ask([this, id = space.id, name = std::string(name), done](
                                LockErrc result, const std::vector<RemoteLock>& /*locks*/) {
    Lockspace* unpinned = find_lockspace(id);
    if (unpinned != nullptr && (result == LockErrc::kOk || result == LockErrc::kNotFound)) {
      set_pin(*unpinned, name, std::nullopt);
    }
    done(result);
  });
  space.backend->unpin(query, space.name, name);
}

void LockTable::look(Lockspace& space, std::string_view name, const Seen& told) {
  if (!space.backend->traits().other_nodes) return told(LockErrc::kOk, {});
  const QueryId query = ask([this, id = space.id, name = std::string(name), told](
                                LockErrc result, std::vector<RemoteLock> locks) {
    if (locks.empty()) locks.push_back({name, std::nullopt, {}});
    Lockspace* seen = find_lockspace(id);
    if (seen != nullptr && result == LockErrc::kOk) set_pin(*seen, name, locks.front().pin);
    told(result, locks.front());
  });
  space.backend->inspect(query, space.name, name);
}

void LockTable::look_all(Lockspace& space, const SeenAll& told, Duration patience) {
  if (!space.backend->traits().other_nodes) return told(LockErrc::kOk, {});
  const QueryId query = ask(
      [this, id = space.id, told](LockErrc result, const std::vector<RemoteLock>& locks) {
        Lockspace* seen = find_lockspace(id);
        if (seen != nullptr && result == LockErrc::kOk) learn_pins(*seen, locks);
        told(result, locks);
      },
      patience);
  space.backend->list(query, space.name);
}

void LockTable::learn_pins(Lockspace& space, const std::vector<RemoteLock>& locks) {
  std::unordered_set<std::string_view> pinned;
  for (const RemoteLock& lock : locks) {
    if (lock.pin) pinned.insert(lock.name);
    if (lock.pin) set_pin(space, lock.name, lock.pin);
  }
  std::vector<std::string> gone;
  for (const auto& [name, lock] : space.locks) {
    if (lock.pin && !pinned.contains(name)) gone.push_back(name);
  }
  for (const std::string& name : gone) set_pin(space, name, std::nullopt);
}

void LockTable::describe_claims() {
  for (const ClaimId id : std::exchange(undescribed_, {})) {
    Claim* claim = claims_.find(id);
    if (claim == nullptr) continue;
    const Lock& lock = *claim->lock;
    const Owner* shown = nullptr;
    uint32_t count = 0;
    for (const Owner* o = lock.first; o != nullptr; o = o->next) {
      if (!o->held.above_null()) continue;
      if (count++ == 0) shown = o;
    }
    const bool waits = shown == nullptr;
    if (waits) shown = owners_.find(claim->asked_for);
    claim->undescribed = false;
    if (shown == nullptr || (waits && !shown->wait)) continue;
    const TimePoint since = waits ? shown->wait->since : shown->since;
    if (timers_.now() - since < kDescribeAfter) {  // Another one by now.
      claim->undescribed = true;
      undescribed_.push_back(id);
      continue;
    }
    const Client client = waits ? shown->wait->client : shown->client;
    const ProcessInfo info = processes_.describe(client.pid);
    Presence who;
    who.host = host;
    who.pid = info.process != 0 ? info.process : client.pid;
    who.comm = info.comm;
    who.uid = client.uid;
    who.container = info.container;
    const auto then = std::chrono::system_clock::now().time_since_epoch() - (timers_.now() - since);
    who.since = std::chrono::duration_cast<std::chrono::nanoseconds>(then).count();
    if (shown->extras) who.note = shown->extras->note;
    who.more = waits ? 0 : count - 1;
    who.token = shown->token;
    lock.space->backend->describe(id, who);
  }
  if (undescribed_.empty()) return;
  timers_.schedule(timers_.now() + kDescribeAfter, [this] { describe_claims(); });
}

}  // namespace lockfs
