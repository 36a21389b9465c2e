// SPDX-License-Identifier: MIT
// The way of a claim: asked for, in the queue, granted, given up.
#include <algorithm>
#include <limits>
#include <utility>

#include "backends/etcd/etcd_backend.h"
#include "backends/etcd/txn.h"

namespace lockfs {
namespace {

using etcd::compare;
using etcd::wire::Compare;

constexpr auto kRetry = std::chrono::milliseconds(500);

}  // namespace

EtcdBackend::Place* EtcdBackend::find(ClaimId id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

EtcdBackend::Place* EtcdBackend::find(const std::string& place) {
  const auto found = places_.find(place);
  return found == places_.end() ? nullptr : &found->second;
}

void EtcdBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                          bool now) {
  Place* place = find(id);
  if (place == nullptr) {
    place = &places_[place_of(lockspace, name)];
    place->space = lockspace;
    place->name = name;
    place->id = id;
    place->doomed = place->own.create;  // What was released is not taken up again.
    place->own.mod = std::max(place->own.mod, last_end_);
    by_id_[id] = place;
  }
  place->ask = Ask{mode, now, false, ++last_ask_, {}, TimerId::kNone};
  // To hold less takes nothing from anybody: it is so at once, and the cluster is told.
  const bool less = place->held && covers(*place->held, mode) && !is_exclusive(mode);
  if (less) return granted(*place, 0);
  if (!session_.up() || !mirror_.knows(place->space)) return wait_for_cluster(*place);
  if (!place->held) return step(*place);
  outlet_->post([this, id] {  // Not from within this verb: it may turn out that it is lost.
    if (Place* still = find(id)) step(*still);
  });
}

// Does the cluster have of us what is asked for, so that it is granted when its turn comes?
bool EtcdBackend::is_queued(const Place& place) {
  const Entry& own = place.own;
  if (!place.ask || own.create == 0 || own.create == place.doomed) return false;
  return place.held ? own.to == place.ask->mode : own.mode == place.ask->mode;
}

// The cluster may be back in a moment; whoever it has heard is patient then.
void EtcdBackend::wait_for_cluster(Place& place) {
  if (!session_.up() && session_.refused()) return fail(place, LockErrc::kUnreachable);
  loop_.timers.cancel(place.ask->patience);
  place.ask->patience = loop_.timers.schedule(
      loop_.timers.now() + kPatience, [this, id = place.id, number = place.ask->number] {
        Place* late = find(id);
        if (late == nullptr || !late->ask || late->ask->number != number) return;
        late->ask->patience = TimerId::kNone;
        if (session_.up() && mirror_.knows(late->space)) return;
        fail(*late, LockErrc::kUnreachable);
      });
}

void EtcdBackend::cancel(ClaimId id) {
  Place* place = find(id);
  if (place == nullptr || !place->ask) return;
  const auto interrupt = [this, id, number = place->ask->number] {
    Place* still = find(id);
    if (still == nullptr || !still->ask || still->ask->number != number) return;
    fail(*still, LockErrc::kInterrupted);
  };
  // Whether a conversion that is on its way has been made is known in a moment.
  if (!place->held || !place->busy) return outlet_->post(interrupt);
  place->ask->cancelled = true;
  outlet_->after(kPatience, interrupt);
}

void EtcdBackend::release(ClaimId id) {
  if (Place* place = find(id)) forsake(*place);
}

// The table wants nothing of it any more; what the cluster has of us goes.
void EtcdBackend::forsake(Place& place) {
  end_ask(place);
  by_id_.erase(std::exchange(place.id, ClaimId::kNone));
  place.held.reset();
  place.words.clear();
  place.contended = false;
  step(place);
}

void EtcdBackend::lose(Place& place, const std::string& why) {
  const ClaimId id = place.id;
  forsake(place);
  events_->lost(id, why);
}

void EtcdBackend::end_ask(Place& place) {
  if (place.ask) loop_.timers.cancel(place.ask->patience);
  place.ask.reset();
}

// The end of an acquire without a grant. What the claim had before it still has.
void EtcdBackend::fail(Place& place, LockErrc why) {
  const ClaimId id = place.id;
  if (place.held) {
    end_ask(place);
    step(place);
  } else {
    forsake(place);
  }
  events_->failed(id, why);
}

void EtcdBackend::granted(Place& place, int64_t token) {
  if (!place.ask || !session_.holds_lease()) return;  // The lease's end is told in a moment.
  const Mode mode = place.ask->mode;
  end_ask(place);
  if (place.held != mode) place.contended = false;  // Of what it was.
  const bool fresh = !place.held;
  place.held = mode;
  place.blocker.clear();
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    tokens = {static_cast<uint64_t>(token), static_cast<uint64_t>(token) + 1};
  }
  const ClaimId id = place.id;
  if (fresh) hint(place);
  if (find(id) == nullptr) return;
  outlet_->post([this, id] {
    if (Place* still = find(id); still != nullptr && still->held) hint(*still);
    if (Place* still = find(id)) step(*still);
  });
  events_->granted(id, mode, tokens);
}

void EtcdBackend::hint(Place& place) {
  const Queue* queue = mirror_.queue(place.space, place.name);
  Entry held = place.own;
  held.mode = *place.held;
  const bool wanted = queue != nullptr && queue->wanted(held);
  if (wanted == std::exchange(place.contended, wanted)) return;
  wanted ? events_->contended(place.id) : events_->uncontended(place.id);
}

// The next thing that is to be done, if nothing is on its way.
void EtcdBackend::step(Place& place) {
  if (!session_.up() || place.busy) return;
  const bool wanted = place.held || place.ask;
  // To delete it nothing else is to be known: nobody may have this lockspace any more.
  if (!wanted && place.own.create != 0) return send_delete(place);
  if (!wanted && !spaces_.contains(place.space)) {
    places_.erase(place_of(place.space, place.name));
    return;
  }
  if (!mirror_.knows(place.space) || adopt(place)) return;
  if (place.ask && place.ask->cancelled) return fail(place, LockErrc::kInterrupted);
  if (place.own.create != 0 && place.doomed == place.own.create) return send_delete(place);
  if (!wanted) {
    places_.erase(place_of(place.space, place.name));
  } else if (!place.ask) {
    keep_up(place);
  } else if (place.held) {
    convert(place);
  } else if (place.own.create != 0) {
    wait_turn(place);
  } else {
    place.ask->now ? send_try(place) : send_acquire(place);
  }
}

// What somebody else did to our key, or an operation of ours that came late.
bool EtcdBackend::adopt(Place& place) {
  const int64_t revision = mirror_.revision(place.space);
  if (revision < place.own.mod) return false;
  const Entry* seen = mirror_.entry(place.space, place.name, session_.owner());
  if (seen == nullptr && place.own.create != 0) {
    look_at_own(place);
    return true;
  }
  const bool news = seen != nullptr && seen->mod > place.own.mod;
  if (news) resync(place, seen, revision);
  return news;
}

// As etcd's recipe does it: our key, unless it is there, and who else is there.
void EtcdBackend::send_acquire(Place& place) {
  const Entry sent = entry_of(place);
  Txn txn;
  compare(txn, Compare::CREATE, key_of(place), Compare::EQUAL, 0);
  put_own(txn, place, sent);
  etcd::read_first(*txn.add_success()->mutable_request_range(),
                   keys_.lock(place.space, place.name));
  read_own(txn, place);
  transact(place, txn, For::kAsk, [this, sent](Place& asked, const Answer& answer, const Ask* ask) {
    acquired(asked, sent, answer, ask);
  });
}

void EtcdBackend::acquired(Place& place, const Entry& sent, const Answer& answer, const Ask* ask) {
  const int64_t revision = answer.header().revision();
  if (!answer.succeeded()) {
    return resync_with(place, answer.responses(0).response_range(), revision);
  }
  place.own = sent;
  place.own.create = place.own.mod = revision;
  if (ask == nullptr) {
    place.doomed = revision;
    return step(place);
  }
  const auto& first = answer.responses(1).response_range();
  const Queue queue = queue_in(place, first);
  const Entry* blocker = queue.blocker(place.own);
  if (blocker == nullptr && !first.more()) return granted(place, revision);
  if (blocker != nullptr && ask->now) return fail(place, LockErrc::kWouldBlock);
  if (blocker != nullptr) place.blocker = blocker->owner;
  if (mirror_.lacks(place.space, place.name, queue, revision)) missed(place.space);
  step(place);
}

// A key only where there is none: who would not wait makes nobody wait.
void EtcdBackend::send_try(Place& place) {
  const Entry sent = entry_of(place);
  const std::string all = keys_.lock(place.space, place.name);
  Txn txn;
  compare(txn, Compare::CREATE, all, Compare::EQUAL, 0).set_range_end(etcd::Keys::end_of(all));
  put_own(txn, place, sent);
  read_own(txn, place);
  etcd::read_first(*txn.add_failure()->mutable_request_range(), all);
  transact(place, txn, For::kAsk, [this, sent](Place& asked, const Answer& answer, const Ask* ask) {
    tried(asked, sent, answer, ask);
  });
}

void EtcdBackend::tried(Place& place, const Entry& sent, const Answer& answer, const Ask* ask) {
  const int64_t revision = answer.header().revision();
  if (answer.succeeded()) {
    place.own = sent;
    place.own.create = place.own.mod = revision;
    if (ask != nullptr) return granted(place, revision);
    place.doomed = revision;
    return step(place);
  }
  const auto& own = answer.responses(0).response_range();
  if (own.kvs_size() != 0) return resync_with(place, own, revision);
  if (ask == nullptr) return step(place);
  const Queue queue = queue_in(place, answer.responses(1).response_range());
  Entry last = sent;
  last.create = std::numeric_limits<int64_t>::max();
  if (queue.blocker(last) != nullptr) return fail(place, LockErrc::kWouldBlock);
  send_acquire(place);  // Others share it.
}

void EtcdBackend::wait_turn(Place& place) {
  if (mirror_.revision(place.space) < place.own.create) return;
  const Queue* queue = mirror_.queue(place.space, place.name);
  const Entry* before = queue == nullptr ? nullptr : queue->find(place.blocker);
  if (before == nullptr || !Queue::stands_before(*before, place.own)) {
    before = queue == nullptr ? nullptr : queue->blocker(place.own);
  }
  if (before != nullptr) return wait_behind(place, *before);
  look(place,
       [this](Place& asked, const Look& now, const Ask& ask) { take_turn(asked, now, ask); });
}

void EtcdBackend::wait_behind(Place& place, const Entry& blocker) {
  place.blocker = blocker.owner;
  if (place.ask->now) return fail(place, LockErrc::kWouldBlock);
  keep_up(place);
}

// By what the cluster says itself.
void EtcdBackend::take_turn(Place& place, const Look& now, const Ask& ask) {
  if (const Entry* before = now.keys.blocker(place.own)) {
    return mirror_.revision(place.space) > now.revision ? step(place) : wait_behind(place, *before);
  }
  // What it was made by is its token, unless somebody may have had a greater one meanwhile.
  const bool late = now.converted > place.own.create;
  if (!late || !is_exclusive(ask.mode)) return granted(place, place.own.create);
  Entry entry = place.own;
  entry.converted = true;
  put(place, entry, For::kGrant);
}

void EtcdBackend::put(Place& place, const Entry& entry, For what) {
  Txn txn;
  compare(txn, Compare::MOD, key_of(place), Compare::EQUAL, place.own.mod);
  put_own(txn, place, entry);
  if (what == For::kGrant) takes_token(txn, place);
  read_own(txn, place);
  transact(place, txn, what,
           [this, entry, what](Place& asked, const Answer& answer, const Ask* ask) {
             const int64_t revision = answer.header().revision();
             if (!answer.succeeded()) {
               return resync_with(asked, answer.responses(0).response_range(), revision);
             }
             asked.own = entry;
             asked.own.mod = revision;
             if (what == For::kGrant && ask != nullptr) return granted(asked, revision);
             step(asked);
           });
}

void EtcdBackend::send_delete(Place& place) {
  Txn txn;
  compare(txn, Compare::CREATE, key_of(place), Compare::EQUAL, place.own.create);
  txn.add_success()->mutable_request_delete_range()->set_key(key_of(place));
  read_own(txn, place);
  transact(place, txn, For::kKey, [this](Place& asked, const Answer& answer, const Ask* /*ask*/) {
    const int64_t revision = answer.header().revision();
    if (!answer.succeeded()) {
      return resync_with(asked, answer.responses(0).response_range(), revision);
    }
    last_end_ = std::max(last_end_, revision);
    asked.own = {};
    asked.own.mod = revision;
    step(asked);
  });
}

void EtcdBackend::transact(Place& place, const Txn& txn, For what, Done done) {
  place.busy = true;
  if (place.ask) loop_.timers.cancel(std::exchange(place.ask->patience, TimerId::kNone));
  session_.transact(txn, [this, at = place_of(place.space, place.name), what,
                          number = place.ask ? place.ask->number : 0,
                          done = std::move(done)](const Answer* answer) {
    Place* asked = find(at);
    if (asked == nullptr) return;
    asked->busy = false;
    Ask* ask = asked->ask && asked->ask->number == number ? &*asked->ask : nullptr;
    if (answer != nullptr) return done(*asked, *answer, ask);
    if (ask != nullptr && what != For::kKey) return fail(*asked, LockErrc::kUnreachable);
    retry(*asked, kRetry);
  });
}

void EtcdBackend::retry(Place& place, Duration time) {
  outlet_->after(time, [this, at = place_of(place.space, place.name)] {
    if (Place* again = find(at)) step(*again);
  });
}

void EtcdBackend::resync_with(Place& place, const etcd::wire::RangeResponse& own,
                              int64_t revision) {
  if (own.kvs_size() == 0) return resync(place, nullptr, revision);
  const Entry entry = etcd::entry_of(own.kvs(0), session_.owner());
  resync(place, &entry, revision);
}

std::string EtcdBackend::key_of(const Place& place) const {
  return keys_.lock(place.space, place.name) + session_.owner();
}

EtcdBackend::Entry EtcdBackend::entry_of(const Place& place) const {
  Entry entry;
  entry.owner = session_.owner();
  entry.mode = place.ask->mode;
  entry.words = place.words;
  return entry;
}

void EtcdBackend::put_own(Txn& txn, const Place& place, const Entry& entry) const {
  auto& put = *txn.add_success()->mutable_request_put();
  put.set_key(key_of(place));
  put.set_value(etcd::value_of(entry));
  put.set_lease(session_.lease());
}

// Whoever waits has an older key, but is to have a later token.
void EtcdBackend::takes_token(Txn& txn, const Place& place) const {
  txn.add_success()->mutable_request_put()->set_key(keys_.converted(place.space));
}

// Where the transaction's conditions do not hold.
void EtcdBackend::read_own(Txn& txn, const Place& place) const {
  txn.add_failure()->mutable_request_range()->set_key(key_of(place));
}

EtcdBackend::Queue EtcdBackend::queue_in(const Place& place,
                                         const etcd::wire::RangeResponse& range) const {
  Queue queue;
  const size_t skip = keys_.lock(place.space, place.name).size();
  for (const auto& key : range.kvs()) {
    const std::string_view owner = std::string_view(key.key()).substr(skip);
    if (owner.find('/') == std::string_view::npos) queue.put(etcd::entry_of(key, owner));
  }
  return queue;
}

}  // namespace lockfs
