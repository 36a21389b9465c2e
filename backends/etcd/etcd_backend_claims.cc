// SPDX-License-Identifier: MIT
// The way of a claim: asked for, in the queue, granted, converted, given up.
#include <limits>
#include <utility>

#include "backends/etcd/etcd_backend.h"

namespace lockfs {
namespace {

using etcd::wire::Compare;
using etcd::wire::RangeRequest;

constexpr auto kRetry = std::chrono::milliseconds(500);
// When a conversion met somebody else's change: until the mirror has that, too.
constexpr auto kAgain = std::chrono::milliseconds(20);
// A deadlock stays one; what looks like it for a moment is only not told yet.
constexpr Duration kStands = std::chrono::milliseconds(100);
// So many of a queue are read when a key is put into it: whoever is before ours is among them, or
// the mirror will tell.
constexpr int kFirst = 10;

Compare& compare(etcd::wire::TxnRequest& txn, Compare::CompareTarget target, const std::string& key,
                 Compare::CompareResult result, int64_t revision) {
  Compare& out = *txn.add_compare();
  out.set_target(target);
  out.set_key(key);
  out.set_result(result);
  target == Compare::CREATE ? out.set_create_revision(revision) : out.set_mod_revision(revision);
  return out;
}

void read_first(RangeRequest& range, const std::string& key) {
  range.set_key(key);
  range.set_range_end(etcd::Keys::end_of(key));
  range.set_sort_target(RangeRequest::CREATE);
  range.set_sort_order(RangeRequest::ASCEND);
  range.set_limit(kFirst);
}

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
    place->doomed = place->own.create != 0;  // What was released is not taken up again.
    by_id_[id] = place;
  }
  place->ask = Ask{mode, now, ++last_ask_, {}, TimerId::kNone};
  // To hold less takes nothing from anybody: it is so at once, and the cluster is told.
  const bool less = place->held && covers(*place->held, mode) && !is_exclusive(mode);
  if (less) return granted(*place, 0);
  session_.up() ? step(*place) : wait_for_cluster(*place);
}

// The cluster may be back in a moment.
void EtcdBackend::wait_for_cluster(Place& place) {
  if (session_.refused()) return fail(place, LockErrc::kUnreachable);
  place.ask->patience = loop_.timers.schedule(
      loop_.timers.now() + kPatience, [this, id = place.id, number = place.ask->number] {
        Place* late = find(id);
        if (late == nullptr || !late->ask || late->ask->number != number) return;
        late->ask->patience = TimerId::kNone;
        fail(*late, LockErrc::kUnreachable);
      });
}

void EtcdBackend::cancel(ClaimId id) {
  const Place* place = find(id);
  if (place == nullptr || !place->ask) return;
  outlet_->post([this, id, number = place->ask->number] {
    Place* still = find(id);
    if (still == nullptr || !still->ask || still->ask->number != number) return;
    fail(*still, LockErrc::kInterrupted);
  });
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
  place.held = mode;
  place.contended = false;  // Of what it was.
  place.missed = false;
  place.blocker.clear();
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    tokens = {static_cast<uint64_t>(token), static_cast<uint64_t>(token) + 1};
  }
  outlet_->post([this, id = place.id] {
    if (Place* still = find(id); still != nullptr && still->held) hint(*still);
    if (Place* still = find(id)) step(*still);
  });
  events_->granted(place.id, mode, tokens);
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
  if (!session_.up() || place.busy || !place.known) return;
  const bool wanted = place.held || place.ask;
  if (place.own.create != 0 && (place.doomed || !wanted)) return send_delete(place);
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

// As etcd's recipe does it: our key, unless it is there, and who else is there.
void EtcdBackend::send_acquire(Place& place) {
  const Entry sent = entry_of(place);
  Txn txn;
  compare(txn, Compare::CREATE, key_of(place), Compare::EQUAL, 0);
  put_own(txn, place, sent);
  read_first(*txn.add_success()->mutable_request_range(), keys_.lock(place.space, place.name));
  read_own(txn, place);
  transact(place, txn, [this, sent](Place& asked, const Answer& answer) {
    acquired(asked, sent, answer);
  });
}

void EtcdBackend::acquired(Place& place, const Entry& sent, const Answer& answer) {
  if (!answer.succeeded()) return resync_with(place, answer.responses(0).response_range());
  place.own = sent;
  place.own.create = place.own.mod = answer.header().revision();
  if (!place.ask || place.ask->mode != sent.mode) {
    place.doomed = true;
    return step(place);
  }
  const auto& first = answer.responses(1).response_range();
  const Queue queue = queue_in(place, first);
  const Entry* blocker = queue.blocker(place.own);
  if (blocker == nullptr && !first.more()) return granted(place, place.own.create);
  if (blocker != nullptr && place.ask->now) return fail(place, LockErrc::kWouldBlock);
  if (blocker != nullptr) place.blocker = blocker->owner;
  step(place);
}

// A key only where there is none: who would not wait makes nobody wait.
void EtcdBackend::send_try(Place& place) {
  const Entry sent = entry_of(place);
  const std::string all = keys_.lock(place.space, place.name);
  Txn txn;
  compare(txn, Compare::CREATE, all, Compare::EQUAL, 0).set_range_end(etcd::Keys::end_of(all));
  put_own(txn, place, sent);
  read_first(*txn.add_failure()->mutable_request_range(), all);
  transact(place, txn, [this, sent](Place& asked, const Answer& answer) {
    tried(asked, sent, answer);
  });
}

void EtcdBackend::tried(Place& place, const Entry& sent, const Answer& answer) {
  if (answer.succeeded()) {
    place.own = sent;
    place.own.create = place.own.mod = answer.header().revision();
    if (place.ask && place.ask->mode == sent.mode) return granted(place, place.own.create);
    place.doomed = true;
    return step(place);
  }
  const Queue queue = queue_in(place, answer.responses(0).response_range());
  if (const Entry* own = queue.find(sent.owner)) return resync(place, *own);
  if (!place.ask || place.ask->mode != sent.mode) return step(place);
  Entry last = sent;
  last.create = std::numeric_limits<int64_t>::max();
  if (queue.blocker(last) != nullptr) return fail(place, LockErrc::kWouldBlock);
  send_acquire(place);  // Others share it.
}

void EtcdBackend::wait_turn(Place& place) {
  const Queue* queue = mirror_.queue(place.space, place.name);
  if (mirror_.revision(place.space) < place.own.create) return;
  const Entry* before = queue == nullptr ? nullptr : queue->find(place.blocker);
  if (before == nullptr || !Queue::stands_before(*before, place.own)) {
    before = queue == nullptr ? nullptr : queue->blocker(place.own);
  }
  if (before != nullptr) {
    place.blocker = before->owner;
    if (place.ask->now) return fail(place, LockErrc::kWouldBlock);
    return keep_up(place);
  }
  // What it was made by is its token, unless somebody had a greater one meanwhile.
  const bool late = place.missed || queue == nullptr || queue->last_converted() > place.own.create;
  if (!late || !is_exclusive(place.ask->mode)) return granted(place, place.own.create);
  Entry entry = place.own;
  entry.converted = true;
  put(place, entry, true);
}

void EtcdBackend::convert(Place& place) {
  const Mode mode = place.ask->mode;
  if (covers(place.own.mode, mode)) {  // For a token.
    Entry entry = place.own;
    entry.mode = mode;
    entry.to.reset();
    entry.converted = true;
    return put(place, entry, true);
  }
  if (mirror_.revision(place.space) < place.own.mod) return;
  const Queue* queue = mirror_.queue(place.space, place.name);
  const Queue nobody;
  const auto conversion = (queue == nullptr ? nobody : *queue).convertible(place.own, mode);
  if (conversion.turn == Queue::Turn::kNow) {
    return convert_now(place, conversion, mirror_.revision(place.space));
  }
  if (place.ask->now) return look_again(place);
  if (place.own.to == mode) {
    if (conversion.turn != Queue::Turn::kDeadlock) return;
    const Duration stands = Clock::now() - place.ask->announced;
    return stands < kStands ? retry(place, kStands - stands) : fail(place, LockErrc::kDeadlock);
  }
  place.ask->announced = Clock::now();
  Entry entry = place.own;
  entry.to = mode;
  entry.words = place.words;
  put(place, entry, false);
}

// Unless anybody has come or changed anything since that revision.
void EtcdBackend::convert_now(Place& place, const Queue::Conversion& conversion, int64_t revision) {
  const std::string all = keys_.lock(place.space, place.name);
  Entry entry = place.own;
  entry.mode = place.ask->mode;
  entry.to.reset();
  entry.converted = true;
  Txn txn;
  compare(txn, Compare::MOD, key_of(place), Compare::EQUAL, place.own.mod);
  compare(txn, Compare::MOD, all, Compare::LESS, revision + 1)
      .set_range_end(etcd::Keys::end_of(all));
  for (const Entry* guard : conversion.guards) {
    compare(txn, Compare::MOD, all + guard->owner, Compare::EQUAL, guard->mod);
  }
  put_own(txn, place, entry);
  transact(place, txn, [this, entry](Place& asked, const Answer& answer) {
    if (!answer.succeeded()) return retry(asked, kAgain);
    asked.own = entry;
    asked.own.mod = answer.header().revision();
    if (asked.ask && asked.ask->mode == entry.mode) return granted(asked, asked.own.mod);
    step(asked);
  });
}

// Who would not wait is not refused for what the mirror has not heard yet.
void EtcdBackend::look_again(Place& place) {
  const std::string all = keys_.lock(place.space, place.name);
  Txn txn;
  auto& range = *txn.add_success()->mutable_request_range();
  range.set_key(all);
  range.set_range_end(etcd::Keys::end_of(all));
  transact(place, txn, [this](Place& asked, const Answer& answer) {
    if (!asked.ask || !asked.held) return step(asked);
    const Queue queue = queue_in(asked, answer.responses(0).response_range());
    const auto conversion = queue.convertible(asked.own, asked.ask->mode);
    if (conversion.turn != Queue::Turn::kNow) return fail(asked, LockErrc::kWouldBlock);
    convert_now(asked, conversion, answer.header().revision());
  });
}

// Others are to see who holds or waits, and no more than what is held. But a conversion counts from
// when its key was changed last.
void EtcdBackend::keep_up(Place& place) {
  Entry entry = place.own;
  entry.words = place.words;
  if (place.held) entry.mode = *place.held;
  entry.to.reset();
  if (etcd::value_of(entry) != etcd::value_of(place.own)) put(place, entry, false);
}

void EtcdBackend::put(Place& place, const Entry& entry, bool grants) {
  Txn txn;
  compare(txn, Compare::MOD, key_of(place), Compare::EQUAL, place.own.mod);
  put_own(txn, place, entry);
  read_own(txn, place);
  transact(place, txn, [this, entry, grants](Place& asked, const Answer& answer) {
    if (!answer.succeeded()) return resync_with(asked, answer.responses(0).response_range());
    asked.own = entry;
    asked.own.mod = answer.header().revision();
    if (grants && asked.ask && asked.ask->mode == entry.mode) return granted(asked, asked.own.mod);
    step(asked);
  });
}

void EtcdBackend::send_delete(Place& place) {
  Txn txn;
  compare(txn, Compare::CREATE, key_of(place), Compare::EQUAL, place.own.create);
  txn.add_success()->mutable_request_delete_range()->set_key(key_of(place));
  read_own(txn, place);
  transact(place, txn, [this](Place& asked, const Answer& answer) {
    asked.doomed = false;
    asked.missed = false;
    if (!answer.succeeded()) return resync_with(asked, answer.responses(0).response_range());
    asked.own = {};
    step(asked);
  });
}

void EtcdBackend::transact(Place& place, const Txn& txn,
                           std::function<void(Place&, const Answer&)> done) {
  place.busy = true;
  if (place.ask) loop_.timers.cancel(std::exchange(place.ask->patience, TimerId::kNone));
  session_.transact(txn, [this, at = place_of(place.space, place.name),
                          done = std::move(done)](const Answer* answer) {
    Place* asked = find(at);
    if (asked == nullptr) return;
    asked->busy = false;
    if (answer != nullptr) return done(*asked, *answer);
    if (asked->ask) return fail(*asked, LockErrc::kUnreachable);
    retry(*asked, kRetry);
  });
}

void EtcdBackend::retry(Place& place, Duration time) {
  outlet_->after(time, [this, at = place_of(place.space, place.name)] {
    if (Place* again = find(at)) step(*again);
  });
}

void EtcdBackend::resync_with(Place& place, const etcd::wire::RangeResponse& own) {
  place.missed = true;
  if (own.kvs_size() == 0) return resync(place, std::nullopt);
  resync(place, etcd::entry_of(own.kvs(0), session_.owner()));
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
