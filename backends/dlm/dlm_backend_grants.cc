// SPDX-License-Identifier: MIT
// A claim's way: acquire, start, request, granted, its token; and what becomes of a lock after.
#include <algorithm>
#include <utility>

#include "backends/dlm/dlm_backend.h"

namespace lockfs {

DlmBackend::Resource* DlmBackend::find(Space& space, std::string_view name) {
  const auto found = space.resources.find(name);
  return found == space.resources.end() ? nullptr : &found->second;
}

DlmBackend::Resource& DlmBackend::make(Space& space, std::string_view name) {
  Resource& made = space.resources[std::string(name)];
  made.space = &space;
  made.name = name;
  made.who.host = host_;
  return made;
}

// Every lock has a number of its own: what comes late finds nobody.
void DlmBackend::number(Resource& resource) {
  if (resource.no != LockNo::kNone) by_number_.erase(resource.no);
  resource.no = LockNo{++last_number_};
  by_number_[resource.no] = &resource;
}

// Of a lock that was refused: there is at most the anchor left.
void DlmBackend::forget_number(Resource& resource) {
  if (resource.held != Mode::kNL || resource.no == LockNo::kNone) return;
  by_number_.erase(resource.no);
  resource.no = LockNo::kNone;
}

void DlmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                         bool now) {
  if (broken_ || (now && !quorate_)) return events_->failed(id, LockErrc::kUnreachable);
  const auto known = claims_.find(id);
  Space& space = known != claims_.end() ? *known->second->space : space_of(lockspace);
  Resource* resource = known != claims_.end() ? known->second : find(space, name);
  if (resource != nullptr && resource->kept) {
    if (covers(resource->held, mode)) {
      unkeep(*resource);
    } else {
      drop(*resource);  // To convert it could be a deadlock of two who only keep.
      resource = nullptr;
    }
  }
  if (resource == nullptr) resource = &make(space, name);
  if (known == claims_.end()) {
    resource->claim = id;
    claims_[id] = resource;
  }
  if (!resource->idle()) {
    resource->next = {mode, now};
  } else {
    start(*resource, {mode, now});
  }
  const auto pending = claims_.find(id);
  if (!now || pending == claims_.end()) return;
  Resource& asked = *pending->second;
  if (asked.next || asked.busy == Busy::kClaim || asked.busy == Busy::kCount) {
    asked.patience =
        loop_.timers.schedule(loop_.timers.now() + kPatience, [this, id] { out_of_patience(id); });
  }
}

// For the claim of a resource that is idle. What the claim has too much is given back when somebody
// wants it, or when something is to be stored.
void DlmBackend::start(Resource& resource, Want want) {
  if (want.mode == Mode::kNL) {
    const bool is_null = resource.held == Mode::kNL && resource.anchor != LockNo::kNone;
    return is_null ? grant(resource, Mode::kNL) : request(resource, Busy::kClaim, want);
  }
  if (covers(resource.held, want.mode)) return grant(resource, want.mode);
  request(resource, Busy::kClaim, want);
}

void DlmBackend::request(Resource& resource, Busy whose, Want want) {
  resource.busy = whose;
  resource.asked = want;
  resource.attempts = 0;
  submit(resource);
}

void DlmBackend::submit(Resource& resource) {
  ++resource.attempts;
  resource.deaths = resource.space->deaths;
  std::optional<LockValue> write;
  if (resource.held == Mode::kNL) {
    number(resource);  // Not the anchor's conversion, which would pass all who wait.
  } else if (is_exclusive(resource.held) &&
             !(resource.held == Mode::kPW && resource.asked.mode == Mode::kEX)) {
    write = std::exchange(resource.write, std::nullopt);
  }
  kernel_thread_.post([this, no = resource.no, space = resource.space->name, name = resource.name,
                       want = resource.asked,
                       write] { kernel_->acquire(no, space, name, want.mode, want.now, write); });
}

void DlmBackend::granted(LockNo no, Mode mode, const LockValue& value) {
  if (tokens_.granted(no, mode, value)) return expire_later();
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  const Busy whose = std::exchange(resource.busy, Busy::kNo);
  resource.held = mode;
  resource.wanted = false;  // Of what it was; the DLM says it again.
  if (!resource.write) resource.value = value;
  // Granted by the death of a node that had the value: then the DLM has no other, and says nothing.
  const bool none = value.bytes == LockValue().bytes;
  if (none && resource.deaths != resource.space->deaths) resource.value.valid = false;
  if (mode == Mode::kNL) anchored(resource);
  if (whose == Busy::kOwn) return own_ended(resource);
  if (!quorate_ && mode != Mode::kNL) return fail(resource, LockErrc::kUnreachable);
  grant(resource, resource.asked.mode);
}

void DlmBackend::anchored(Resource& resource) {
  const LockNo before = std::exchange(resource.anchor, resource.no);
  by_number_.erase(resource.no);
  resource.no = LockNo::kNone;
  if (before != LockNo::kNone) release_lock(before, std::nullopt);
}

// The lock is there; an exclusive grant takes a token.
void DlmBackend::grant(Resource& resource, Mode mode) {
  resource.busy = Busy::kCount;
  const ClaimId id = resource.claim;
  const uint64_t count = ++resource.count;
  if (!is_exclusive(mode)) return granted_with(id, count, mode, 0);
  if (const uint64_t token = tokens_.take(resource.space->name, resource.name)) {
    return granted_with(id, count, mode, token);
  }
  tokens_.next(resource.space->name, resource.name,
               [this, id, count, mode](uint64_t token) { granted_with(id, count, mode, token); });
}

void DlmBackend::granted_with(ClaimId id, uint64_t count, Mode mode, uint64_t token) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;  // Released meanwhile.
  Resource& resource = *found->second;
  if (resource.busy != Busy::kCount || resource.count != count) return;
  const bool without = is_exclusive(mode) && token == 0;
  if (without || (!quorate_ && !covers(resource.told, mode))) {
    return fail(resource, LockErrc::kUnreachable);
  }
  resource.busy = Busy::kNo;
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
  resource.told = mode;
  events_->value(id, resource.value);
  events_->granted(id, mode, token != 0 ? TokenBlock{token, token + 1} : TokenBlock{});
  const auto after = claims_.find(id);
  if (after != claims_.end() && after->second->idle()) settle(*after->second);
}

// The end of an acquire without a grant. What the claim had before it still has.
void DlmBackend::fail(Resource& resource, LockErrc why) {
  const ClaimId id = resource.claim;
  resource.busy = Busy::kNo;
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
  if (resource.bare()) {
    drop(resource);
    return events_->failed(id, why);
  }
  forget_number(resource);
  events_->failed(id, why);
  const auto after = claims_.find(id);
  if (after != claims_.end() && after->second->idle()) settle(*after->second);
}

void DlmBackend::refused(LockNo no, LockErrc why) {
  if (tokens_.refused(no)) return;
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  if (resource.busy == Busy::kOwn) {
    if (!resource.lookers.empty()) return look_refused(resource, why);
    return own_refused(resource);
  }
  if (why != LockErrc::kWouldBlock || resource.attempts >= kAttempts) return fail(resource, why);
  // Others may only keep it: they give it back when they are asked.
  ask(*resource.space, resource.name, [this, no](const Replies& replies) {
    const auto known = by_number_.find(no);
    if (known == by_number_.end()) return;
    Resource& again = *known->second;
    if (again.busy == Busy::kOwn) return own_refused(again);  // It had no patience.
    for (const dlm::Told& told : replies) {
      if (!compatible(told.held, again.asked.mode)) return fail(again, LockErrc::kWouldBlock);
    }
    submit(again);
  });
}

// The end of what the table did not ask for.
void DlmBackend::own_ended(Resource& resource) {
  if (!resource.wanted || resource.told == resource.held) {
    for (const auto& work : std::exchange(resource.after_own, {})) work();
  }
  const auto lookers = std::exchange(resource.lookers, {});
  Space& space = *resource.space;
  const std::string name = resource.name;
  settle(resource);
  for (const Looker& looker : lookers) look(looker, space, name);
}

// It is not tried again before something else happens.
void DlmBackend::own_refused(Resource& resource) {
  resource.busy = Busy::kNo;
  forget_number(resource);
  for (const auto& work : std::exchange(resource.after_own, {})) work();
  if (resource.claim == ClaimId::kNone) return keep(resource);
  if (const auto next = std::exchange(resource.next, std::nullopt)) start(resource, *next);
}

// What is next for a resource that is idle: what its claim asked for meanwhile, or its end, or what
// is to be stored or given back.
void DlmBackend::settle(Resource& resource) {
  if (resource.claim == ClaimId::kNone) return keep(resource);
  if (const auto next = std::exchange(resource.next, std::nullopt)) return start(resource, *next);
  if (resource.write && is_exclusive(resource.held)) {
    const Mode mode = resource.wanted ? resource.told : resource.held;
    return request(resource, Busy::kOwn, {mode, false});
  }
  if (!resource.wanted || resource.held == Mode::kNL) return;
  if (resource.told != resource.held) return request(resource, Busy::kOwn, {resource.told, false});
  outlet_->post([this, id = resource.claim] {
    if (claims_.contains(id)) events_->contended(id);
  });
}

void DlmBackend::blocking(LockNo no) {
  if (tokens_.blocking(no)) return;
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  resource.wanted = true;
  if (resource.kept) return drop(resource);
  if (resource.idle()) return settle(resource);
  if (resource.told != Mode::kNL) events_->contended(resource.claim);
}

// One who would not wait gets no answer: the cluster changes, or has no quorum.
void DlmBackend::out_of_patience(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  Resource& resource = *found->second;
  resource.patience = TimerId::kNone;
  if (resource.next) {
    resource.next.reset();
    if (resource.bare()) detach(resource);
    return events_->failed(id, LockErrc::kUnreachable);
  }
  if (resource.busy == Busy::kCount || resource.bare()) {
    return fail(resource, LockErrc::kUnreachable);
  }
  resource.busy = Busy::kOwn;  // Its answer is for nobody.
  kernel_thread_.post([this, no = resource.no] { kernel_->cancel(no); });
  events_->failed(id, LockErrc::kUnreachable);
}

// Its claim is gone; what is under way goes on.
void DlmBackend::detach(Resource& resource) {
  claims_.erase(resource.claim);
  resource.claim = ClaimId::kNone;
  resource.told = Mode::kNL;
  resource.who = {};
  resource.who.host = host_;
  resource.next.reset();
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
}

void DlmBackend::cancel(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  Resource& resource = *found->second;
  if (resource.busy == Busy::kClaim) {
    return kernel_thread_.post([this, no = resource.no] { kernel_->cancel(no); });
  }
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
  if (resource.busy == Busy::kCount) {
    // Its token may be long in coming, as from a node that is stopped.
    resource.busy = Busy::kNo;
    resource.bare() ? drop(resource) : settle(resource);
  } else if (std::exchange(resource.next, std::nullopt)) {
    if (resource.bare()) detach(resource);
  } else {
    return;
  }
  interrupted_.insert(id);
  outlet_->post([this, id] {
    if (interrupted_.erase(id) != 0) events_->failed(id, LockErrc::kInterrupted);
  });
}

void DlmBackend::release(ClaimId id) {
  interrupted_.erase(id);
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  Resource& resource = *found->second;
  detach(resource);
  if (resource.busy == Busy::kCount) resource.busy = Busy::kNo;
  if (resource.busy == Busy::kOwn && !resource.lookers.empty()) return;  // The look goes on.
  resource.idle() ? keep(resource) : drop(resource);
}

void DlmBackend::describe(ClaimId id, const Presence& who) {
  const auto found = claims_.find(id);
  if (found != claims_.end()) found->second->who = who;
}

// Stored at once, so that it outlives this node.
void DlmBackend::set_value(ClaimId id, const LockValue& value) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  found->second->value = value;
  found->second->write = value;
  if (found->second->idle()) settle(*found->second);
}

// Without a claim, a lock is kept if that makes sense: beside CR others may write the value block.
void DlmBackend::keep(Resource& resource) {
  if (resource.wanted || resource.write || resource.held <= Mode::kCR || !quorate_ || broken_) {
    return drop(resource);
  }
  if (const LockNo anchor = std::exchange(resource.anchor, LockNo::kNone);
      anchor != LockNo::kNone) {
    release_lock(anchor, std::nullopt);
  }
  resource.kept = true;
  resource.kept_since = loop_.timers.now();
  kept_.splice(kept_.end(), resource.node);
  if (kept_.size() > kMaxKept) drop(*kept_.front());
  expire_later();
}

void DlmBackend::expire_later() {
  if (expiry_ != TimerId::kNone) return;
  expiry_ = loop_.timers.schedule(loop_.timers.now() + kKeepTime, [this] { expire(); });
}

void DlmBackend::unkeep(Resource& resource) {
  resource.kept = false;
  resource.node.splice(resource.node.end(), kept_, resource.place);
}

void DlmBackend::expire() {
  expiry_ = TimerId::kNone;
  while (!kept_.empty() && kept_.front()->kept_since + kKeepTime <= loop_.timers.now()) {
    drop(*kept_.front());
  }
  std::optional<TimePoint> next = tokens_.expire(kKeepTime);
  if (!kept_.empty()) {
    const TimePoint due = kept_.front()->kept_since + kKeepTime;
    next = next ? std::min(*next, due) : due;
  }
  if (next) expiry_ = loop_.timers.schedule(*next, [this] { expire(); });
}

void DlmBackend::release_lock(LockNo no, const std::optional<LockValue>& write) {
  if (broken_) return;  // The kernel would sleep on it for ever.
  const bool tell = when_gone_.contains(no);
  kernel_thread_.post([this, no, write, tell] { kernel_->release(no, write, tell); });
}

// Its lock is released; events of it find nobody, but whoever waits for its end.
void DlmBackend::drop(Resource& resource) {
  if (resource.wanted && is_exclusive(resource.held)) {
    tokens_.hand_over(resource.space->name, resource.name);
  }
  if (resource.no != LockNo::kNone) {
    release_lock(resource.no, is_exclusive(resource.held) ? resource.write : std::nullopt);
  }
  erase(resource);
}

void DlmBackend::erase(Resource& resource) {
  if (resource.kept) unkeep(resource);
  if (resource.claim != ClaimId::kNone) detach(resource);
  if (resource.anchor != LockNo::kNone) release_lock(resource.anchor, std::nullopt);
  if (resource.no != LockNo::kNone) by_number_.erase(resource.no);
  for (const Looker& looker : resource.lookers) refuse(looker.query);
  for (const auto& work : resource.after_own) work();
  const auto self = resource.space->resources.find(resource.name);
  resource.space->resources.erase(self);
}

void DlmBackend::gone(LockNo no) {
  const auto found = when_gone_.find(no);
  if (found == when_gone_.end()) return;
  const auto work = std::move(found->second);
  when_gone_.erase(found);
  work();
}

}  // namespace lockfs
