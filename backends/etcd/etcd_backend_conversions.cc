// SPDX-License-Identifier: MIT
// What a claim holds becomes more or less, and others are shown it.
#include "backends/etcd/etcd_backend.h"
#include "backends/etcd/txn.h"

namespace lockfs {
namespace {

using etcd::compare;
using etcd::wire::Compare;

// A deadlock stays one; what looks like it for a moment is only not told yet.
constexpr Duration kStands = std::chrono::milliseconds(100);
// When a conversion met somebody else's change: until the mirror has that, too.
constexpr auto kAgain = std::chrono::milliseconds(20);

// A key that is granted this, whatever it was made for.
etcd::Entry converted(etcd::Entry entry, Mode mode) {
  entry.mode = mode;
  entry.to.reset();
  entry.converted = true;
  return entry;
}

}  // namespace

void EtcdBackend::convert(Place& place) {
  const Mode mode = place.ask->mode;
  if (covers(place.own.mode, mode)) {
    return put(place, converted(place.own, mode), For::kGrant);  // For a token.
  }
  if (place.own.mode != *place.held) return keep_up(place);  // Others still wait for what it was.
  if (mirror_.revision(place.space) < place.own.mod) return;
  const Queue* queue = mirror_.queue(place.space, place.name);
  const Queue nobody;
  const auto turn = (queue == nullptr ? nobody : *queue).convertible(place.own, mode).turn;
  if (turn == Queue::Turn::kNow || place.ask->now || is_deadlock(place, turn)) {
    return look(place,
                [this](Place& asked, const Look& now, Ask& ask) { convert_by(asked, now, ask); });
  }
  if (place.own.to != mode) wait_for_others(place);
}

// By what the cluster says itself.
void EtcdBackend::convert_by(Place& place, const Look& now, Ask& ask) {
  const auto conversion = now.keys.convertible(place.own, ask.mode);
  if (conversion.turn == Queue::Turn::kNow) return convert_now(place, conversion, now.revision);
  if (ask.now) return fail(place, LockErrc::kWouldBlock);
  if (place.own.to != ask.mode) return wait_for_others(place);
  if (is_deadlock(place, conversion.turn)) return fail(place, LockErrc::kDeadlock);
  if (mirror_.revision(place.space) > now.revision) step(place);
}

// Whoever sees that it asks for more stands back.
void EtcdBackend::wait_for_others(Place& place) {
  Entry entry = place.own;
  entry.to = place.ask->mode;
  entry.words = place.words;
  put(place, entry, For::kAsk);
}

bool EtcdBackend::is_deadlock(Place& place, Queue::Turn turn) {
  auto& since = place.ask->deadlocked;
  if (turn != Queue::Turn::kDeadlock || place.own.to != place.ask->mode) {
    since.reset();
    return false;
  }
  if (since) return loop_.timers.now() - *since >= kStands;
  since = loop_.timers.now();
  retry(place, kStands);
  return false;
}

// Unless anybody has come or changed anything since that revision.
void EtcdBackend::convert_now(Place& place, const Queue::Conversion& conversion, int64_t revision) {
  const std::string all = keys_.lock(place.space, place.name);
  const Entry entry = converted(place.own, place.ask->mode);
  Txn txn;
  compare(txn, Compare::MOD, key_of(place), Compare::EQUAL, place.own.mod);
  compare(txn, Compare::MOD, all, Compare::LESS, revision + 1)
      .set_range_end(etcd::Keys::end_of(all));
  for (const Entry* guard : conversion.guards) {
    compare(txn, Compare::MOD, all + guard->owner, Compare::EQUAL, guard->mod);
  }
  put_own(txn, place, entry);
  takes_token(txn, place);
  read_own(txn, place);
  transact(place, txn, For::kAsk,
           [this, entry](Place& asked, const Answer& answer, const Ask* ask) {
             const int64_t now = answer.header().revision();
             if (!answer.succeeded()) {
               const auto& own = answer.responses(0).response_range();
               const bool ours = own.kvs_size() != 0 && own.kvs(0).mod_revision() == asked.own.mod;
               return ours ? retry(asked, kAgain) : resync_with(asked, own, now);
             }
             asked.own = entry;
             asked.own.mod = now;
             ask != nullptr ? granted(asked, now) : step(asked);
           });
}

// Others are to see who holds or waits, and no more than what is held. But a conversion counts from
// when its key was changed last.
void EtcdBackend::keep_up(Place& place) {
  if (place.held && !covers(place.own.mode, *place.held)) {
    return lose(place, "etcd: its key in " + cluster_ + " says less than what is held");
  }
  Entry entry = place.own;
  entry.words = place.words;
  if (place.held) entry.mode = *place.held;
  entry.to.reset();
  if (etcd::value_of(entry) != etcd::value_of(place.own)) put(place, entry, For::kKey);
}

}  // namespace lockfs
