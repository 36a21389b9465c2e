// SPDX-License-Identifier: MIT
#include "backends/etcd/etcd_backend.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "backends/etcd/txn.h"
#include "backends/key_values.h"

namespace lockfs {
namespace {

constexpr auto kStartTime = std::chrono::seconds(2);
constexpr auto kLoadAgain = std::chrono::milliseconds(500);

}  // namespace

EtcdBackend::EtcdBackend(EventLoop& loop, const etcd::Url& url)
    : loop_(loop),
      cluster_(url.words()),
      keys_(url.prefix),
      mirror_(keys_),
      outlet_(std::make_shared<Outlet>(loop)),
      session_(loop, url, *this) {
  traits_.name = "etcd";
  traits_.contention_hints = true;
  traits_.strict_turns = true;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.joins = true;
  traits_.value_block = false;
  traits_.slots = false;
}

EtcdBackend::~EtcdBackend() {
  outlet_->close();
  for (auto& [at, place] : places_) end_ask(place);
}

void EtcdBackend::start(ClaimEvents& events) {
  events_ = &events;
  session_.start();
  look_around();
}

std::vector<std::pair<std::string, std::string>> EtcdBackend::status() const {
  const std::string& refusal = session_.refusal();
  const std::string up = refusal.empty() ? "up" : "up, but it refuses: " + refusal;
  return {{"cluster", cluster_},
          {"member", session_.member()},
          {"state", session_.up() ? up : session_.trouble()},
          {"lease", session_.owner()},
          {"claims", std::to_string(by_id_.size())}};
}

// A lockspace needs nothing; but a mount appears only when it is known whether the cluster is
// there.
void EtcdBackend::join(QueryId query, std::string_view lockspace, mode_t /*mode*/) {
  const std::string space(lockspace);
  left_.erase(space);
  if (mirror_.knows(space)) return events_->answered(query, LockErrc::kOk, {});
  loading_[space].push_back(
      {query, [this, query] { events_->answered(query, LockErrc::kOk, {}); }, true});
  load(space);
  outlet_->after(kStartTime, [this, query, space] {
    const auto waits = loading_.find(space);
    if (waits == loading_.end()) return;
    if (std::erase_if(waits->second, [&](const auto& q) { return q.query == query; }) == 0) return;
    const bool refused = session_.refused();
    if (!refused) spdlog::warn("etcd: {} is out of reach: {}", cluster_, session_.trouble());
    events_->answered(query, refused ? LockErrc::kUnreachable : LockErrc::kOk, {});
  });
}

void EtcdBackend::leave(QueryId query, std::string_view lockspace, bool /*force*/) {
  const std::string space(lockspace);
  spaces_.erase(space);
  left_.erase(space);
  load_again(space, Duration::zero());
  events_->answered(query, LockErrc::kOk, {});
}

void EtcdBackend::describe(ClaimId id, const Presence& who) {
  Place* place = find(id);
  if (place == nullptr) return;
  place->words = presence_words(who);
  outlet_->post([this, id] {
    if (Place* still = find(id)) step(*still);
  });
}

void EtcdBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  const std::string space(lockspace);
  when_known(space, query, [this, query, space, lock = std::string(name)] {
    events_->answered(query, LockErrc::kOk, mirror_.of(space, lock, session_.owner()));
  });
}

void EtcdBackend::list(QueryId query, std::string_view lockspace) {
  const std::string space(lockspace);
  when_known(space, query, [this, query, space] {
    events_->answered(query, LockErrc::kOk, mirror_.all(space, session_.owner()));
  });
}

void EtcdBackend::when_known(const std::string& space, QueryId query, std::function<void()> work) {
  if (!session_.up()) return events_->answered(query, LockErrc::kUnreachable, {});
  if (mirror_.knows(space)) return work();
  loading_[space].push_back({query, std::move(work), false});
  load(space);
}

void EtcdBackend::load(const std::string& space) {
  spaces_.insert(space);
  if (!session_.up() || !mirror_.expect(space)) return;
  Txn txn;
  for (const std::string& key : {keys_.space(space), keys_.pins(space)}) {
    etcd::read_all(*txn.add_success()->mutable_request_range(), key);
  }
  session_.transact(
      txn, [this, space](const Answer* answer) { loaded(space, answer); }, true);
}

// What the mirror knows of it is not to be relied on.
void EtcdBackend::load_again(const std::string& space, Duration time) {
  const int64_t watch = mirror_.watch_of(space);
  if (session_.up() && watch != 0) {
    session_.unwatch(watch);
    session_.unwatch(watch + 1);
  }
  mirror_.forget(space);
  outlet_->after(time, [this, space] {
    if (spaces_.contains(space)) load(space);
  });
}

void EtcdBackend::loaded(const std::string& space, const Answer* answer) {
  const bool good = answer != nullptr && answer->responses_size() == 2;
  if (good && spaces_.contains(space)) {
    const int64_t revision = answer->header().revision();
    mirror_.load(space, answer->responses(0).response_range(),
                 answer->responses(1).response_range(), revision);
    const int64_t watch = mirror_.watch_of(space);
    const std::string locks = keys_.space(space);
    const std::string pins = keys_.pins(space);
    session_.watch(watch, locks, etcd::Keys::end_of(locks), revision + 1);
    session_.watch(watch + 1, pins, etcd::Keys::end_of(pins), revision + 1);
    step_all(space);
    for (const std::string& name : mirror_.of_owner(space, session_.owner())) {
      if (find(place_of(space, name)) == nullptr) suspect(space, name);
    }
  } else if (!good) {
    load_again(space, kLoadAgain);
  }
  const auto questions = loading_.extract(space);
  if (questions.empty()) return;
  for (const Question& question : questions.mapped()) {
    mirror_.knows(space) ? question.work()
                         : events_->answered(question.query, LockErrc::kUnreachable, {});
  }
}

void EtcdBackend::step_all(const std::string& space) {
  std::vector<std::string> places;
  for (const auto& [at, place] : places_) {
    if (place.space == space) places.push_back(at);
  }
  for (const std::string& at : places) {
    if (Place* place = find(at)) step(*place);
  }
}

void EtcdBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                      const Pin& pin, bool fresh) {
  change_pin(query, lockspace, name, pin, fresh);
}

void EtcdBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  change_pin(query, lockspace, name, std::nullopt, false);
}

void EtcdBackend::change_pin(QueryId query, std::string_view lockspace, std::string_view name,
                             const std::optional<Pin>& pin, bool fresh) {
  if (!session_.up()) return events_->answered(query, LockErrc::kUnreachable, {});
  const std::string key = keys_.pins(lockspace) + std::string(name);
  Txn txn;
  if (!pin || fresh) {
    using etcd::wire::Compare;
    etcd::compare(txn, Compare::CREATE, key, pin ? Compare::EQUAL : Compare::GREATER, 0);
  }
  if (pin) {
    auto& put = *txn.add_success()->mutable_request_put();
    put.set_key(key);
    put.set_value(pin_words(*pin));
  } else {
    txn.add_success()->mutable_request_delete_range()->set_key(key);
  }
  session_.transact(txn, [this, query, space = std::string(lockspace), lock = std::string(name),
                          pin](const Answer* answer) {
    if (answer == nullptr) return events_->answered(query, LockErrc::kUnreachable, {});
    if (!answer->succeeded()) {
      return events_->answered(query, pin ? LockErrc::kExists : LockErrc::kNotFound, {});
    }
    mirror_.set_pin(space, lock, pin);
    events_->answered(query, LockErrc::kOk, {});
  });
}

// From here on, what the session tells.

std::string EtcdBackend::trouble() const { return session_.up() ? "" : session_.trouble(); }

void EtcdBackend::came_up() {
  events_->reach_changed();
  for (const auto& [at, place] : places_) {
    if (spaces_.insert(place.space).second) left_[place.space] = Clock::now();
  }
  for (const std::string& space : std::set<std::string>(spaces_)) load(space);
}

void EtcdBackend::went_down(const std::string& /*why*/) {
  events_->reach_changed();
  mirror_.forget();
  strays_.clear();
  std::vector<ClaimId> waiting;
  for (auto& [at, place] : places_) {
    place.busy = false;
    place.blocker.clear();
    // Who is in the queue stays there as long as the lease does.
    if (place.ask && (place.ask->now || !is_queued(place))) waiting.push_back(place.id);
  }
  for (const ClaimId id : waiting) {
    if (Place* place = find(id)) wait_for_cluster(*place);
  }
  for (auto& [space, questions] : loading_) {
    std::erase_if(questions, [this](const Question& question) {
      if (question.joins) return false;
      outlet_->post(
          [this, query = question.query] { events_->answered(query, LockErrc::kUnreachable, {}); });
      return true;
    });
  }
}

// The keys of the next lease are others.
void EtcdBackend::expired(const std::string& why) {
  std::vector<ClaimId> ids;
  for (auto& [at, place] : places_) {
    if (place.id != ClaimId::kNone) ids.push_back(place.id);
  }
  std::erase_if(places_, [](const auto& item) { return item.second.id == ClaimId::kNone; });
  for (const ClaimId id : ids) {
    Place* place = find(id);
    if (place == nullptr) continue;
    const bool held = place->held.has_value();
    end_ask(*place);
    by_id_.erase(id);
    places_.erase(place_of(place->space, place->name));
    held ? events_->lost(id, why) : events_->failed(id, LockErrc::kUnreachable);
  }
}

void EtcdBackend::watched(const etcd::wire::WatchResponse& response) {
  mirror_.apply(response, [this](const etcd::Mirror::Change& change) {
    Place* place = find(place_of(change.space, change.name));
    if (place != nullptr) {
      if (place->held) hint(*place);
      place = find(place_of(change.space, change.name));
      if (place != nullptr) step(*place);
    } else if (change.entry.owner == session_.owner() && !change.gone) {
      suspect(std::string(change.space), std::string(change.name));
    }
  });
}

// Of what we did ourselves the answer tells; else somebody else did it, or it came late.
void EtcdBackend::resync(Place& place, const Entry* own, int64_t revision) {
  const bool same = own != nullptr && own->create == place.own.create;
  const int64_t as_of = own != nullptr ? own->mod : std::max(place.own.mod, revision);
  place.own = own != nullptr ? Entry(*own) : Entry{};
  place.own.mod = as_of;
  if (own == nullptr) last_end_ = std::max(last_end_, as_of);
  if (place.held) {
    // It may have become already what is asked for.
    const bool done = same && place.ask && own->mode == place.ask->mode;
    const bool enough = done || (same && covers(own->mode, *place.held));
    if (!enough) {
      return lose(place, "etcd: its key in " + cluster_ + " is gone: somebody deleted it");
    }
  } else if (own != nullptr) {
    const bool fits = place.ask && !own->to && own->mode == place.ask->mode;
    if (!fits) place.doomed = own->create;
  }
  step(place);
}

}  // namespace lockfs
