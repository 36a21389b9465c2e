// SPDX-License-Identifier: MIT
// What the cluster has not told, though it should have. Some of its versions lose events where a
// watcher is slow (before 3.4.36 and 3.5.18). So what is granted is so by a read that needs a
// quorum, and now and then all that the mirror has is compared.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "backends/etcd/etcd_backend.h"
#include "backends/etcd/txn.h"

namespace lockfs {
namespace {

constexpr auto kLookTime = std::chrono::seconds(8);
// So many keys at a time.
constexpr int kLookKeys = 5000;
// So long a change may be on its way.
constexpr auto kTellTime = std::chrono::seconds(1);
constexpr auto kSweepTime = std::chrono::milliseconds(500);

}  // namespace

void EtcdBackend::look(Place& place, Seen seen) {
  Txn txn;
  etcd::read_all(*txn.add_success()->mutable_request_range(), keys_.lock(place.space, place.name));
  txn.add_success()->mutable_request_range()->set_key(keys_.converted(place.space));
  transact(
      place, txn, For::kAsk,
      [this, seen = std::move(seen)](Place& asked, const Answer& answer, Ask* ask) {
        if (ask == nullptr) return step(asked);
        Look now{queue_in(asked, answer.responses(0).response_range()), answer.header().revision()};
        const auto& converted = answer.responses(1).response_range();
        if (converted.kvs_size() != 0) now.converted = converted.kvs(0).mod_revision();
        const Entry* own = now.keys.find(session_.owner());
        if (own == nullptr || own->mod != asked.own.mod) {
          return resync(asked, own, now.revision);
        }
        if (mirror_.lacks(asked.space, asked.name, now.keys, now.revision)) {
          return missed(asked.space);
        }
        seen(asked, now, *ask);
      });
}

// That our key is gone may be true, or only that nobody has told of it.
void EtcdBackend::look_at_own(Place& place) {
  Txn txn;
  txn.add_success()->mutable_request_range()->set_key(key_of(place));
  transact(place, txn, For::kKey, [this](Place& asked, const Answer& answer, const Ask* /*ask*/) {
    const auto& own = answer.responses(0).response_range();
    if (own.kvs_size() == 0 || own.kvs(0).mod_revision() != asked.own.mod) {
      return resync_with(asked, own, answer.header().revision());
    }
    missed(asked.space);
  });
}

void EtcdBackend::look_around() {
  outlet_->after(kLookTime / 4, [this] { look_around(); });
  if (!session_.up()) return;
  forget_left();
  std::erase_if(overviews_, [this](const auto& item) { return !spaces_.contains(item.first); });
  for (const std::string& space : spaces_) {
    if (!mirror_.knows(space)) continue;
    const bool due = Clock::now() - overviews_[space].done_at >= kLookTime;
    if (due) look_over(space, overviews_[space].from);
  }
}

// So long a key of ours may still come.
void EtcdBackend::forget_left() {
  for (const auto& [space, since] : std::map<std::string, TimePoint>(left_)) {
    const bool needed = std::any_of(places_.begin(), places_.end(), [&s = space](const auto& item) {
      return item.second.space == s;
    });
    if (needed || Clock::now() - since < kLookTime) continue;
    left_.erase(space);
    spaces_.erase(space);
    load_again(space, Duration::zero());
  }
}

void EtcdBackend::look_over(const std::string& space, const std::string& from) {
  const std::string all = keys_.space(space);
  etcd::wire::RangeRequest range;
  range.set_key(all + from);
  range.set_range_end(etcd::Keys::end_of(all));
  range.set_keys_only(true);
  range.set_limit(kLookKeys);
  session_.call<etcd::wire::RangeRequest, etcd::wire::RangeResponse>(
      "/etcdserverpb.KV/Range", range,
      [this, space, from](const etcd::wire::RangeResponse* answer) {
        if (answer != nullptr && spaces_.contains(space)) looked_over(space, from, *answer);
      },
      true);
}

// Where the mirror has later news already the next look may be luckier.
void EtcdBackend::looked_over(const std::string& space, const std::string& from,
                              const etcd::wire::RangeResponse& answer) {
  etcd::Mirror::Reading reading;
  reading.from = from;
  reading.revision = answer.header().revision();
  const size_t skip = keys_.space(space).size();
  for (const auto& key : answer.kvs()) {
    const std::string rest = key.key().substr(skip);
    if (!etcd::split_key(rest).name.empty()) reading.keys[rest] = key.mod_revision();
    if (answer.more()) reading.to = rest + '\0';
  }
  const std::string next = reading.to;
  if (!mirror_.compare(space, std::move(reading))) return;
  overviews_[space] = {next, next.empty() ? Clock::now() : TimePoint()};
  outlet_->after(kTellTime, [this, space] {
    if (mirror_.differs(space)) return missed(space);
    step_all(space);  // Whoever waits for something that came and went untold.
  });
}

// What waits for the lockspace goes on when it is loaded.
void EtcdBackend::missed(const std::string& space) {
  if (!mirror_.knows(space)) return;
  spdlog::warn("etcd: {} has not told of a change", cluster_);
  load_again(space, Duration::zero());
}

// A key of our lease that nobody here knows of may be one whose end is not told yet.
void EtcdBackend::suspect(const std::string& space, const std::string& name) {
  strays_.emplace(space, name);
  if (std::exchange(sweeping_, true)) return;
  outlet_->after(kSweepTime, [this] { sweep(); });
}

void EtcdBackend::sweep() {
  sweeping_ = false;
  for (const auto& [space, name] : std::exchange(strays_, {})) {
    const bool ours = mirror_.entry(space, name, session_.owner()) != nullptr;
    if (!ours || find(place_of(space, name)) != nullptr) continue;
    Place& place = places_[place_of(space, name)];
    place.space = space;
    place.name = name;
    step(place);
  }
}

}  // namespace lockfs
