// SPDX-License-Identifier: MIT
// The life of the backend: its threads, the lockspaces, the cluster's state.
#include "backends/dlm/dlm_backend.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "core/processes.h"

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
  void members(const std::string& space, const dlm::Membership& now) override {
    const Member self = backend_.group_->self();
    const bool doubtful =
        !now.joined.empty() && dlm::fencing_is_off() && dlm::halves_may_both_have_quorum(self.node);
    outlet_.post(
        [this, space, self, now, doubtful] { backend_.members(space, self, now, doubtful); });
  }

 private:
  DlmBackend& backend_;
  Outlet& outlet_;
};

DlmBackend::DlmBackend(EventLoop& loop, std::string prefix)
    : loop_(loop),
      prefix_(std::move(prefix)),
      host_(host_name()),
      tokens_({[this] { return LockNo{++last_number_}; },
               [this](LockNo no, const std::string& space, const std::string& resource, Mode mode,
                      const std::optional<LockValue>& write) {
                 if (broken_) return;
                 kernel_thread_.post([this, no, space, resource, mode, write] {
                   kernel_->acquire(no, space, resource, mode, false, write);
                 });
               },
               [this](LockNo no) {
                 group_thread_.post([this, no] {
                   const uint64_t ring = ring_.ask().value_or(0);
                   outlet_->post([this, no, ring] { tokens_.started(no, ring); });
                 });
               },
               [this](const std::string& space, size_t counter, uint64_t token) {
                 const auto found = spaces_.find(space);
                 if (found != spaces_.end()) say_floors(found->second, {{counter, token}});
               },
               [this] { return loop_.timers.now(); }}),
      outlet_(std::make_shared<Outlet>(loop)) {
  traits_.name = "dlm";
  traits_.contention_hints = true;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.joins = true;
  traits_.max_name_bytes = DLM_RESNAME_MAXLEN;
  traits_.max_lockspace_bytes = DLM_LOCKSPACE_LEN - 1 - prefix_.size();
}

// All is released in order, so that value blocks and counters stay valid for the others.
DlmBackend::~DlmBackend() {
  outlet_->close();
  for (auto& [name, space] : spaces_) drop_all(space);
  tokens_.leave_all();
  loop_.timers.cancel(expiry_);
  for (const auto& [number, question] : questions_) loop_.timers.cancel(question.timer);
  group_thread_.post([this] {
    EventLoop& loop = group_thread_.loop();
    if (controld_ && controld_->fd() >= 0) loop.unwatch(controld_->fd());
    if (quorum_watch_ && quorum_watch_->fd() >= 0) loop.unwatch(quorum_watch_->fd());
    if (group_) group_->leave_all();
  });
  kernel_thread_.post([this, broken = broken_] {
    if (broken) {
      static_cast<void>(kernel_.release());  // To close it would wait for ever.
    } else if (kernel_) {
      kernel_->leave_all();
    }
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

std::string DlmBackend::trouble() const {
  if (broken_) return "dlm_controld has ended: this node must be restarted";
  return quorate_ ? "" : "this node has no quorum";
}

void DlmBackend::quorum(bool quorate, bool unfenced) {
  if (quorate == quorate_) return;
  quorate_ = quorate;
  events_->reach_changed();
  if (quorate) return spdlog::warn("dlm: the cluster has quorum again");
  spdlog::error("dlm: this node has no quorum: nothing is granted until it has; {}",
                unfenced ? "what is held here is lost, for fencing is off"
                         : "what is held here stays until the others have fenced this node");
  if (!unfenced) return distrust_kept();
  lose_claims("this node has no quorum, and as fencing is off others may be granted the lock");
}

// Others may be granted what is only kept here, and give tokens of what is counted here.
void DlmBackend::distrust_kept() {
  while (!kept_.empty()) drop(*kept_.front());
  tokens_.doubt();
}

DlmBackend::Space& DlmBackend::space_of(std::string_view lockspace) {
  const auto [found, fresh] = spaces_.try_emplace(prefix_ + std::string(lockspace));
  if (fresh) found->second.name = found->first;
  return found->second;
}

void DlmBackend::join(QueryId query, std::string_view lockspace, mode_t mode) {
  const std::string name = space_of(lockspace).name;
  // Of the kernel's device: users of the mount come by the mount, other programs where we share.
  const mode_t device = prefix_.empty() ? mode : mode & 0600;
  kernel_thread_.post([this, query, name, device] {
    const auto failure = kernel_->join(name, device);
    if (failure) spdlog::error("dlm: {}", failure->words);
    const LockErrc result = failure ? failure->why : LockErrc::kOk;
    outlet_->post([this, query, name, result] {
      const auto found = spaces_.find(name);
      if (result != LockErrc::kOk || found == spaces_.end()) {
        return events_->answered(query, result, {});
      }
      when_known(found->second, query,
                 [this, query] { events_->answered(query, LockErrc::kOk, {}); });
    });
  });
  group_thread_.post([this, name] { group_->join(name); });
}

void DlmBackend::leave(QueryId query, std::string_view lockspace, bool force) {
  Space& space = space_of(lockspace);
  const std::string name = space.name;
  space.left = true;
  drop_all(space);
  tokens_.leave(name);
  forget_group(space);
  spaces_.erase(name);
  group_thread_.post([this, name] { group_->leave(name); });
  kernel_thread_.post([this, query, lockspace = std::string(lockspace), name, force] {
    const LockErrc result = kernel_->leave(name, force);
    outlet_->post([this, query, lockspace, name, result] {
      if (result == LockErrc::kBusy) {
        space_of(lockspace);
        group_thread_.post([this, name] { group_->join(name); });
      }
      events_->answered(query, result, {});
    });
  });
}

void DlmBackend::drop_all(Space& space) {
  while (!space.resources.empty()) drop(space.resources.begin()->second);
}

// We are no member any more: nothing that was asked there will be answered.
void DlmBackend::forget_group(Space& space) {
  for (const uint64_t number : questions_of(space)) finish(number);
  if (!space.left) tokens_.cut_off(space.name);
  for (const QueryId query : std::exchange(space.pinning, {})) refuse(query);
  for (const auto& [query, work] : std::exchange(space.until_known, {})) refuse(query);
}

// Not from within the verb.
void DlmBackend::refuse(QueryId query) {
  outlet_->post([this, query] { events_->answered(query, LockErrc::kUnreachable, {}); });
}

void DlmBackend::lose_all(const std::string& why) {
  broken_ = true;
  events_->reach_changed();
  spdlog::error("dlm: {}; restart this node before you use its locks again", why);
  lose_claims(why);
  std::vector<ClaimId> waiting;
  for (const auto& [id, resource] : claims_) waiting.push_back(id);
  for (auto& [name, space] : spaces_) {
    drop_all(space);
    forget_group(space);
  }
  tokens_.leave_all();
  for (const ClaimId id : waiting) events_->failed(id, LockErrc::kUnreachable);
}

void DlmBackend::lose_claims(const std::string& why) {
  distrust_kept();
  std::vector<ClaimId> held;
  for (const auto& [id, resource] : claims_) {
    if (!resource->bare() || resource->busy == Busy::kCount) held.push_back(id);
  }
  for (const ClaimId id : held) {
    const auto found = claims_.find(id);
    if (found == claims_.end()) continue;  // Released by those who were told before.
    const bool told = !found->second->bare();
    drop(*found->second);
    told ? events_->lost(id, why) : events_->failed(id, LockErrc::kUnreachable);
  }
}

}  // namespace lockfs
