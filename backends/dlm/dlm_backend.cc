// SPDX-License-Identifier: MIT
#include "backends/dlm/dlm_backend.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <utility>

namespace lockfs {

using dlm::KernelLocks;

// From the threads to the loop.
class DlmBackend::KernelEvents final : public dlm::LockEvents {
 public:
  KernelEvents(DlmBackend& backend, Outlet& outlet) : backend_(backend), outlet_(outlet) {}
  void granted(LockNo no, Mode mode, const LockValue& value) override {
    outlet_.post([this, no, mode, value] { backend_.granted(no, mode, value); });
  }
  void refused(LockNo no, LockErrc why) override {
    outlet_.post([this, no, why] { backend_.refused(no, why); });
  }
  void blocking(LockNo no) override {
    outlet_.post([this, no] { backend_.blocking(no); });
  }
  void gone(LockNo no) override {
    outlet_.post([this, no] { backend_.gone(no); });
  }

 private:
  DlmBackend& backend_;
  Outlet& outlet_;
};

class DlmBackend::GroupTold final : public dlm::GroupEvents {
 public:
  GroupTold(DlmBackend& backend, Outlet& outlet) : backend_(backend), outlet_(outlet) {}
  void heard(const std::string& space, Member from, const std::string& text) override {
    auto message = dlm::from_text(text);
    if (!message) return;
    outlet_.post([this, space, from, message = std::move(*message)] {
      backend_.heard(space, from, message);
    });
  }
  void members(const std::string& space, const std::vector<Member>& all,
               const std::vector<Member>& joined, const std::vector<Member>& left) override {
    outlet_.post([this, space, self = backend_.group_->self(), all, joined, left] {
      backend_.members(space, self, all, joined, left);
    });
  }

 private:
  DlmBackend& backend_;
  Outlet& outlet_;
};

DlmBackend::DlmBackend(EventLoop& loop, std::string prefix)
    : loop_(loop),
      prefix_(std::move(prefix)),
      tokens_({[this] { return LockNo{++last_number_}; },
               [this](LockNo no, const std::string& space, const std::string& resource, Mode mode,
                      const std::optional<LockValue>& write) {
                 kernel_thread_.post([this, no, name = dlm_name(space), resource, mode, write] {
                   kernel_->acquire(no, name, resource, mode, false, write);
                 });
               },
               [this](LockNo no) {
                 kernel_thread_.post([this, no] {
                   const uint64_t ring = dlm::ring_sequence().value_or(0);
                   outlet_->post([this, no, ring] { tokens_.started(no, ring); });
                 });
               }}),
      outlet_(std::make_shared<Outlet>(loop)) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  host_ = host.data();
  traits_.name = "dlm";
  traits_.contention_hints = true;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.joins = true;
  traits_.max_name_bytes = DLM_RESNAME_MAXLEN;
  traits_.max_lockspace_bytes = DLM_LOCKSPACE_LEN - 1 - prefix_.size();
}

DlmBackend::~DlmBackend() {
  outlet_->close();
  loop_.timers.cancel(expiry_);
  for (const auto& [key, resource] : resources_) loop_.timers.cancel(resource.patience);
  for (const auto& [number, question] : questions_) loop_.timers.cancel(question.timer);
  group_thread_.post([this] {
    EventLoop& events = group_thread_.loop();
    if (controld_ && controld_->fd() >= 0) events.unwatch(controld_->fd());
    if (quorum_watch_ && quorum_watch_->fd() >= 0) events.unwatch(quorum_watch_->fd());
    group_.reset();
  });
  kernel_thread_.post([this, leave = !broken_] {
    if (kernel_ && leave) kernel_->leave_all();
    kernel_.reset();
  });
}

void DlmBackend::start(ClaimEvents& events) {
  events_ = &events;
  kernel_events_ = std::make_unique<KernelEvents>(*this, *outlet_);
  group_events_ = std::make_unique<GroupTold>(*this, *outlet_);
  kernel_thread_.post(
      [this] { kernel_ = std::make_unique<KernelLocks>(kernel_thread_.loop(), *kernel_events_); });
  group_thread_.post([this] {
    group_ = std::make_unique<dlm::Groups>(group_thread_.loop(), *group_events_);
    watch_cluster();
  });
}

// On the group's thread.
void DlmBackend::watch_cluster() {
  EventLoop& loop = group_thread_.loop();
  const auto ended = [this] {
    outlet_->post([this] {
      lose_all("dlm_controld of this node has ended: other nodes may take what was held here");
    });
  };
  controld_ = std::make_unique<dlm::ControldWatch>();
  if (controld_->fd() < 0) return ended();
  loop.watch(controld_->fd(), [this, &loop, ended] {
    loop.unwatch(controld_->fd());
    ended();
    return false;
  });
  quorum_watch_ = std::make_unique<dlm::QuorumWatch>();
  if (quorum_watch_->fd() < 0) return;
  loop.watch(quorum_watch_->fd(), [this, &loop] {
    if (!quorum_watch_->take()) loop.unwatch(quorum_watch_->fd());  // dlm_controld ends as well.
    const bool quorate = quorum_watch_->quorate();
    const bool unfenced = !quorate && dlm::fencing_is_off();
    outlet_->post([this, quorate, unfenced] { quorum(quorate, unfenced); });
    return false;
  });
}

void DlmBackend::quorum(bool quorate, bool unfenced) {
  if (quorate == quorate_) return;
  quorate_ = quorate;
  if (quorate) return spdlog::warn("dlm: the cluster has quorum again");
  spdlog::error("dlm: this node has no quorum: nothing is granted until it has; {}",
                unfenced ? "what is held here is lost, for fencing is off"
                         : "what is held here stays until the others have fenced this node");
  while (!kept_.empty()) drop(*kept_.front());
  if (unfenced) {
    lose_claims("this node has no quorum, and as fencing is off others may be granted the lock");
  }
}

void DlmBackend::join(QueryId query, std::string_view lockspace, mode_t mode) {
  const std::string space(lockspace);
  groups_[space];
  kernel_thread_.post([this, query, space, mode] {
    const auto failure = kernel_->join(dlm_name(space), mode);
    if (failure) spdlog::error("dlm: {}", failure->words);
    const LockErrc result = failure ? failure->why : LockErrc::kOk;
    outlet_->post([this, query, result] { events_->answered(query, result, {}); });
  });
  group_thread_.post([this, space] { group_->join(space); });
}

void DlmBackend::leave(QueryId query, std::string_view lockspace, bool force) {
  const std::string space(lockspace);
  std::vector<Resource*> left;
  for (auto& [key, resource] : resources_) {
    if (resource.space == space) left.push_back(&resource);
  }
  for (Resource* resource : left) drop(*resource);
  tokens_.forget(space);
  kernel_thread_.post([this, query, space, force] {
    const LockErrc result = kernel_->leave(dlm_name(space), force);
    outlet_->post([this, query, space, result] {
      if (result != LockErrc::kBusy) {
        groups_.erase(space);
        group_thread_.post([this, space] { group_->leave(space); });
      }
      events_->answered(query, result, {});
    });
  });
}

DlmBackend::Resource* DlmBackend::find(const std::string& space, std::string_view name) {
  const auto found = resources_.find(space + '\0' + std::string(name));
  return found == resources_.end() ? nullptr : &found->second;
}

DlmBackend::Resource& DlmBackend::make(const std::string& space, std::string_view name) {
  Resource& made = resources_[space + '\0' + std::string(name)];
  made.space = space;
  made.name = name;
  made.who.host = host_;
  return made;
}

// Of a lock that was refused: there is only the anchor left.
void DlmBackend::forget_number(Resource& resource) {
  if (resource.held != Mode::kNL) return;
  by_number_.erase(resource.no);
  resource.no = LockNo::kNone;
}

void DlmBackend::number(Resource& resource) {
  resource.no = LockNo{++last_number_};
  by_number_[resource.no] = &resource;
}

void DlmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                         bool now) {
  if (broken_ || (now && !quorate_)) return events_->failed(id, LockErrc::kUnreachable);
  const std::string space(lockspace);
  Resource* resource = find(space, name);
  if (resource != nullptr && resource->kept) {
    if (covers(resource->held, mode)) {
      unkeep(*resource);
    } else {
      drop(*resource);  // To convert it could be a deadlock of two who only keep.
      resource = nullptr;
    }
  }
  if (resource == nullptr) resource = &make(space, name);
  resource->claim = id;
  claims_[id] = resource;
  if (resource->asking) {
    resource->next = {mode, now};
    return;
  }
  // What the claim has too much is given back when somebody wants it; what was written, now.
  const bool weaker = resource->told != mode && covers(resource->told, mode);
  if (mode != Mode::kNL && covers(resource->held, mode) &&
      !(weaker && (resource->wanted || resource->written))) {
    return grant(*resource, mode);
  }
  request(*resource, {mode, now});
}

void DlmBackend::request(Resource& resource, Want want) {
  resource.asking = true;
  resource.asked = want;
  resource.attempts = 0;
  // Not the anchor's conversion: it would pass all who wait.
  if (resource.no == LockNo::kNone) number(resource);
  if (want.now && !resource.own) {
    resource.patience = loop_.timers.schedule(loop_.timers.now() + kPatience,
                                              [this, no = resource.no] { out_of_patience(no); });
  }
  submit(resource);
}

void DlmBackend::submit(Resource& resource) {
  ++resource.attempts;
  std::optional<LockValue> write;
  if (resource.written && is_exclusive(resource.held)) write = resource.value;
  kernel_thread_.post([this, no = resource.no, space = dlm_name(resource.space),
                       name = resource.name, want = resource.asked,
                       write] { kernel_->acquire(no, space, name, want.mode, want.now, write); });
}

void DlmBackend::granted(LockNo no, Mode mode, const LockValue& value) {
  if (tokens_.granted(no, mode, value)) return;
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  resource.asking = false;
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
  resource.held = mode;
  resource.wanted = false;  // Of what it was; the DLM says it again.
  if (!is_exclusive(mode) || !resource.written) resource.value = value;
  if (!is_exclusive(mode)) resource.written = false;
  if (resource.own) return own_ended(resource);
  if (!quorate_ && mode != Mode::kNL) return fail(resource, LockErrc::kUnreachable);
  if (mode == Mode::kNL) anchored(resource);
  grant(resource, resource.asked.mode);
}

void DlmBackend::anchored(Resource& resource) {
  const LockNo before = std::exchange(resource.anchor, resource.no);
  by_number_.erase(resource.no);
  resource.no = LockNo::kNone;
  if (before == LockNo::kNone) return;
  kernel_thread_.post([this, before] { kernel_->release(before, std::nullopt); });
}

void DlmBackend::grant(Resource& resource, Mode mode) {
  if (!is_exclusive(mode)) return granted_with(resource.claim, mode, 0);
  resource.counting = true;
  tokens_.next(resource.space, resource.name, [this, id = resource.claim, mode](uint64_t token) {
    granted_with(id, mode, token);
  });
}

void DlmBackend::granted_with(ClaimId id, Mode mode, uint64_t token) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;  // Released meanwhile.
  Resource& resource = *found->second;
  resource.counting = false;
  const bool without = is_exclusive(mode) && token == 0;
  if (without || !covers(resource.held, mode)) return fail(resource, LockErrc::kUnreachable);
  resource.told = mode;
  events_->value(id, resource.value);
  events_->granted(id, mode, token != 0 ? TokenBlock{token, token + 1} : TokenBlock{});
  const auto after = claims_.find(id);
  if (after != claims_.end() && after->second->wanted) events_->contended(id);
}

// The end of an acquire without a grant.
void DlmBackend::fail(Resource& resource, LockErrc why) {
  const ClaimId id = resource.claim;
  resource.asking = false;
  loop_.timers.cancel(std::exchange(resource.patience, TimerId::kNone));
  if (resource.told != Mode::kNL || resource.anchor != LockNo::kNone) {
    forget_number(resource);
  } else {
    resource.held == Mode::kNL ? erase(resource) : drop(resource);
  }
  events_->failed(id, why);
}

void DlmBackend::refused(LockNo no, LockErrc why) {
  if (tokens_.refused(no)) return;
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  if (resource.own) {
    if (!resource.lookers.empty()) return look_refused(resource, why);
    resource.asking = false;
    return own_ended(resource);
  }
  if (why != LockErrc::kWouldBlock || resource.attempts >= kAttempts) return fail(resource, why);
  // Others may only keep it: they give it back when they are asked.
  ask(resource.space, resource.name, [this, no](const Replies& replies) {
    const auto known = by_number_.find(no);
    if (known == by_number_.end() || !known->second->asking) return;
    Resource& again = *known->second;
    if (again.own) {  // It had no patience.
      again.asking = false;
      return own_ended(again);
    }
    for (const dlm::Told& told : replies) {
      if (!compatible(told.held, again.asked.mode)) return fail(again, LockErrc::kWouldBlock);
    }
    submit(again);
  });
}

// One who would not wait gets no answer: the cluster changes, or has no quorum.
void DlmBackend::out_of_patience(LockNo no) {
  Resource& resource = *by_number_.at(no);
  resource.patience = TimerId::kNone;
  const ClaimId id = resource.claim;
  if (resource.told == Mode::kNL && resource.anchor == LockNo::kNone) {
    drop(resource);
  } else {
    resource.own = true;  // Its answer is for nobody.
    kernel_thread_.post([this, no] { kernel_->cancel(no); });
  }
  events_->failed(id, LockErrc::kUnreachable);
}

// The end of an acquire that the table did not ask for; what it asked for meanwhile goes on.
void DlmBackend::own_ended(Resource& resource) {
  resource.own = false;
  forget_number(resource);
  for (const auto& work : std::exchange(resource.after_own, {})) work();
  const auto lookers = std::exchange(resource.lookers, {});
  const std::string space = resource.space;
  const std::string name = resource.name;
  const auto next = std::exchange(resource.next, std::nullopt);
  if (resource.claim == ClaimId::kNone) {
    resource.held == Mode::kNL ? erase(resource) : keep(resource);
  } else if (next) {
    covers(resource.held, next->mode) ? grant(resource, next->mode) : request(resource, *next);
  }
  for (const Looker& looker : lookers) look(looker, space, name);
}

void DlmBackend::blocking(LockNo no) {
  if (tokens_.blocking(no)) return;
  const auto found = by_number_.find(no);
  if (found == by_number_.end()) return;
  Resource& resource = *found->second;
  resource.wanted = true;
  if (resource.kept) return drop(resource);
  if (resource.asking || resource.counting) {
    // Its end says more.
  } else if (resource.told != Mode::kNL && resource.told != resource.held) {
    return weaken(resource);
  }
  if (resource.told != Mode::kNL) events_->contended(resource.claim);
}

// Gives back what the claim has too much.
void DlmBackend::weaken(Resource& resource) {
  resource.own = true;
  request(resource, {resource.told, false});
}

void DlmBackend::cancel(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || !found->second->asking) return;
  Resource& resource = *found->second;
  if (!resource.own) {
    return kernel_thread_.post([this, no = resource.no] { kernel_->cancel(no); });
  }
  if (!resource.next) return;
  resource.next.reset();
  if (resource.told == Mode::kNL) {
    resource.claim = ClaimId::kNone;
    claims_.erase(found);
  }
  outlet_->post([this, id] { events_->failed(id, LockErrc::kInterrupted); });
}

void DlmBackend::release(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  Resource& resource = *found->second;
  claims_.erase(found);
  resource.claim = ClaimId::kNone;
  resource.told = Mode::kNL;
  resource.next.reset();
  if (resource.own && !resource.lookers.empty()) return;  // The look goes on.
  if (resource.asking || resource.wanted || resource.written) return drop(resource);
  keep(resource);
}

void DlmBackend::describe(ClaimId id, const Presence& who) {
  const auto found = claims_.find(id);
  if (found != claims_.end()) found->second->who = who;
}

void DlmBackend::set_value(ClaimId id, const LockValue& value) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  found->second->value = value;
  found->second->written = true;
}

void DlmBackend::keep(Resource& resource) {
  if (resource.wanted || resource.held == Mode::kNL || !quorate_) return drop(resource);
  resource.kept = true;
  resource.kept_since = loop_.timers.now();
  resource.kept_at = kept_.insert(kept_.end(), &resource);
  if (const LockNo anchor = std::exchange(resource.anchor, LockNo::kNone);
      anchor != LockNo::kNone) {
    kernel_thread_.post([this, anchor] { kernel_->release(anchor, std::nullopt); });
  }
  if (kept_.size() > kMaxKept) drop(*kept_.front());
  if (expiry_ == TimerId::kNone) {
    expiry_ = loop_.timers.schedule(loop_.timers.now() + kKeepTime, [this] { expire(); });
  }
}

void DlmBackend::unkeep(Resource& resource) {
  resource.kept = false;
  kept_.erase(resource.kept_at);
}

void DlmBackend::expire() {
  expiry_ = TimerId::kNone;
  while (!kept_.empty() && kept_.front()->kept_since + kKeepTime <= loop_.timers.now()) {
    drop(*kept_.front());
  }
  if (kept_.empty()) return;
  const TimePoint next = kept_.front()->kept_since + kKeepTime;
  expiry_ = loop_.timers.schedule(next, [this] { expire(); });
}

// Its lock is released; events of it find nobody, but whoever waits for its end.
void DlmBackend::drop(Resource& resource) {
  if (resource.wanted && is_exclusive(resource.held)) {
    tokens_.hand_over(resource.space, resource.name);
  }
  std::optional<LockValue> write;
  if (resource.written && is_exclusive(resource.held)) write = resource.value;
  if (resource.no != LockNo::kNone) {
    kernel_thread_.post([this, no = resource.no, write] { kernel_->release(no, write); });
  }
  erase(resource);
}

void DlmBackend::erase(Resource& resource) {
  if (resource.kept) unkeep(resource);
  loop_.timers.cancel(resource.patience);
  if (resource.claim != ClaimId::kNone) claims_.erase(resource.claim);
  if (resource.anchor != LockNo::kNone) {
    kernel_thread_.post(
        [this, anchor = resource.anchor] { kernel_->release(anchor, std::nullopt); });
  }
  by_number_.erase(resource.no);
  resources_.erase(resource.space + '\0' + resource.name);
}

void DlmBackend::gone(LockNo no) {
  const auto found = when_gone_.find(no);
  if (found == when_gone_.end()) return;
  const auto work = std::move(found->second);
  when_gone_.erase(found);
  work();
}

void DlmBackend::lose_all(const std::string& why) {
  broken_ = true;
  spdlog::error("dlm: {}; restart this node before you use its locks again", why);
  lose_claims(why);
  std::vector<ClaimId> waiting;
  for (const auto& [id, resource] : claims_) waiting.push_back(id);
  while (!resources_.empty()) erase(resources_.begin()->second);
  for (const ClaimId id : waiting) events_->failed(id, LockErrc::kUnreachable);
}

void DlmBackend::lose_claims(const std::string& why) {
  std::vector<ClaimId> held;
  for (const auto& [id, resource] : claims_) {
    if (resource->told != Mode::kNL) held.push_back(id);
  }
  for (const ClaimId id : held) {
    const auto found = claims_.find(id);
    if (found == claims_.end()) continue;  // Released by those who were told before.
    drop(*found->second);
    events_->lost(id, why);
  }
}

}  // namespace lockfs
