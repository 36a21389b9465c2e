// SPDX-License-Identifier: MIT
#include "backends/redis/redis_backend.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "backends/key_values.h"
#include "core/processes.h"

namespace lockfs {
namespace {

constexpr auto kStartTime = std::chrono::seconds(2);

}  // namespace

RedisBackend::RedisBackend(EventLoop& loop, const redis::Url& url)
    : loop_(loop),
      server_(url.server.words()),
      outlet_(std::make_shared<Outlet>(loop)),
      node_(loop, url, *this) {
  traits_.name = "redis";
  traits_.contention_hints = true;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.joins = true;
  traits_.value_block = false;
}

RedisBackend::~RedisBackend() {
  outlet_->close();
  for (auto& [place, claim] : claims_) {
    if (claim.ask) loop_.timers.cancel(claim.ask->patience);
  }
  loop_.timers.cancel(expiry_);
}

void RedisBackend::start(ClaimEvents& events) {
  events_ = &events;
  node_.start();
}

std::vector<std::pair<std::string, std::string>> RedisBackend::status() const {
  return {
      {"server", server_},
      {"state", node_.up() ? (node_.grace() ? "up, grants nothing yet" : "up") : node_.trouble()},
      {"node", node_.id()},
      {"claims", std::to_string(claims_.size() - kept_.size())},
      {"kept", std::to_string(kept_.size())}};
}

// A lockspace needs nothing; but a mount appears only when it is known whether the server is there.
void RedisBackend::join(QueryId query, std::string_view lockspace, mode_t /*mode*/) {
  load(std::string(lockspace));
  if (started_) return events_->answered(query, LockErrc::kOk, {});
  joining_.push_back(query);
  outlet_->after(kStartTime, [this, query] {
    started_ = true;
    if (std::erase(joining_, query) == 0) return;
    const bool refused = node_.refused();
    if (!refused) spdlog::warn("redis: {} is out of reach: {}", server_, node_.trouble());
    events_->answered(query, refused ? LockErrc::kUnreachable : LockErrc::kOk, {});
  });
}

void RedisBackend::leave(QueryId query, std::string_view lockspace, bool /*force*/) {
  spaces_.erase(std::string(lockspace));
  events_->answered(query, LockErrc::kOk, {});
}

void RedisBackend::describe(ClaimId id, const Presence& who) {
  if (Claim* claim = find(id)) show(*claim, presence_words(who));
}

void RedisBackend::show(Claim& claim, const std::string& words) {
  if (claim.shown == words) return;
  if (!words.empty() && !claim.ask && claim.held != claim.told) give_back(claim);
  claim.shown = words;
  if (node_.up()) node_.call({"show", claim.place, words}, {});
}

void RedisBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  const auto space = std::string(lockspace);
  when_known(space, query, [this, query, space, lock = std::string(name)] {
    events_->answered(query, LockErrc::kOk, mirror_.of(space, lock, node_.id()));
  });
}

void RedisBackend::list(QueryId query, std::string_view lockspace) {
  const auto space = std::string(lockspace);
  when_known(space, query, [this, query, space] {
    events_->answered(query, LockErrc::kOk, mirror_.all(space, node_.id()));
  });
}

void RedisBackend::when_known(const std::string& lockspace, QueryId query,
                              std::function<void()> work) {
  if (!node_.up()) return events_->answered(query, LockErrc::kUnreachable, {});
  if (mirror_.knows(lockspace)) return work();
  loading_[lockspace].push_back({query, std::move(work)});
  load(lockspace);
}

// Before it is asked for, where it can be: a server that hangs then keeps nobody from a lookup.
void RedisBackend::load(const std::string& lockspace) {
  spaces_.insert(lockspace);
  if (!node_.up() || !mirror_.expect(lockspace)) return;
  node_.call({"list", lockspace}, [this, lockspace](const Answer& answer) {
    if (answer.empty()) return end_load(lockspace);
    const auto version = redis::number_in<uint64_t>(answer.front());
    look(lockspace, version,
         std::make_shared<std::vector<std::string>>(answer.begin() + 1, answer.end()));
  });
}

// One step after the other, so that others come in between.
void RedisBackend::look(const std::string& lockspace, uint64_t version, const Places& left) {
  if (left->empty()) {
    mirror_.loaded(lockspace);
    return end_load(lockspace);
  }
  redis::Connection::Words verb = {"look"};
  while (!left->empty() && verb.size() <= kAtOnce) {
    verb.push_back(std::move(left->back()));
    left->pop_back();
  }
  node_.call(verb, [this, lockspace, version, left](const Answer& answer) {
    if (answer.empty()) return end_load(lockspace);
    mirror_.load(lockspace, version, answer);
    look(lockspace, version, left);
  });
}

// Loaded, or not: whoever has asked is answered.
void RedisBackend::end_load(const std::string& lockspace) {
  const auto questions = loading_.extract(lockspace);
  if (questions.empty()) return;
  for (const Question& question : questions.mapped()) {
    if (mirror_.knows(lockspace)) {
      question.work();
    } else {
      events_->answered(question.query, LockErrc::kUnreachable, {});
    }
  }
}

void RedisBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                       const Pin& pin, bool fresh) {
  const auto space = std::string(lockspace);
  const auto lock = std::string(name);
  node_.call({"pin", space, lock, pin_words(pin), fresh ? "1" : "0"},
             [=, this](const Answer& answer) { pinned(query, space, lock, pin, answer); });
}

void RedisBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  const auto space = std::string(lockspace);
  const auto lock = std::string(name);
  node_.call({"unpin", space, lock},
             [=, this](const Answer& answer) { pinned(query, space, lock, std::nullopt, answer); });
}

void RedisBackend::pinned(QueryId query, const std::string& lockspace, const std::string& name,
                          const std::optional<Pin>& pin, const Answer& answer) {
  const std::string_view word = answer.empty() ? "" : answer.front();
  LockErrc result = LockErrc::kUnreachable;
  if (word == "ok") {
    result = LockErrc::kOk;
    mirror_.set_pin(lockspace, name, pin);
  }
  if (word == "exists") result = LockErrc::kExists;
  if (word == "missing") result = LockErrc::kNotFound;
  events_->answered(query, result, {});
}

// From here on, what the node hears.

void RedisBackend::came_up(std::vector<redis::Record> records) {
  started_ = true;
  events_->reach_changed();
  end_cancelled();  // Before they are asked for again.
  for (const QueryId query : std::exchange(joining_, {})) {
    outlet_->post([this, query] { events_->answered(query, LockErrc::kOk, {}); });
  }
  for (const std::string& space : std::set<std::string>(spaces_)) load(space);
  std::unordered_map<std::string_view, const redis::Record*> known;
  for (const redis::Record& record : records) known[record.place] = &record;
  std::vector<std::string> places;
  for (const auto& [place, claim] : claims_) places.push_back(place);
  for (const std::string& place : places) {
    const auto claim = claims_.find(place);
    const auto record = known.find(place);
    if (claim == claims_.end()) continue;
    resync(claim->second, record == known.end() ? nullptr : record->second);
  }
  // What was given up while nobody heard of it.
  for (const redis::Record& record : records) {
    if (!claims_.contains(record.place)) node_.call({"release", record.place}, {});
  }
}

void RedisBackend::resync(Claim& claim, const redis::Record* record) {
  const bool asked = claim.ask && record != nullptr && record->op == claim.ask->op;
  // It was granted already; the answer says what it is now.
  const bool done = asked && record->held && !record->wanted;
  if (claim.held && !done && !resync_held(claim, record)) return;
  if (claim.ask) {
    // Of what was given up since, and is asked for anew.
    const bool old = !claim.held && !asked && record != nullptr && record->held;
    if (old) node_.call({"release", claim.place}, {});
    send(claim);  // It tells what became of it.
  }
  if (record != nullptr || !claim.shown.empty()) {
    node_.call({"show", claim.place, claim.shown}, {});
  }
}

// False if the claim is gone.
bool RedisBackend::resync_held(Claim& claim, const redis::Record* record) {
  const bool has = record != nullptr && record->held && covers(*record->held, claim.told) &&
                   (record->held == Mode::kEX || record->slots >= claim.slots.count) &&
                   (claim.slots.count != 0 || record->slots == 0);
  if (!has && claim.id == ClaimId::kNone) return erase(claim), false;
  if (!has && !node_.grace()) {
    lose(claim, "redis: " + server_ + " has lost it, as after a restart or a failover");
    return false;
  }
  if (!has) return resume(claim), true;
  claim.held = record->held;
  // What nobody here waits for any more, or has given up, while the server did not hear of it.
  const bool waits = claim.ask && claim.ask->op == record->op;
  const bool more = claim.held != claim.told || record->slots > claim.slots.count;
  if (!waits && (more || record->wanted)) give_back(claim);
  return true;
}

// What the server has lost is ours still if we come before anybody else is granted it.
void RedisBackend::resume(Claim& claim) {
  const uint64_t last = claim.tokens.end != 0 ? claim.tokens.end - 1 : 0;
  const uint64_t op = ++last_op_;
  claim.held = claim.told;
  claim.resuming = true;
  node_.call({"resume", claim.place, redis::mode_words(claim.told, claim.slots),
              last != 0 ? std::to_string(last) : "", std::to_string(op), claim.shown,
              std::to_string(claim.slots.count), std::to_string(claim.slots.size)},
             [this, id = claim.id](const Answer& answer) {
               Claim* resumed = find(id);
               if (resumed == nullptr || answer.empty()) return;
               resumed->resuming = false;
               if (answer.front() == "held") return;
               lose(*resumed, "redis: " + server_ + " has lost it, and somebody else has it");
             });
}

void RedisBackend::lose(Claim& claim, const std::string& why) {
  const ClaimId id = claim.id;
  node_.call({"release", claim.place}, {});
  erase(claim);
  if (id != ClaimId::kNone) events_->lost(id, why);
}

void RedisBackend::went_down(const std::string& /*why*/) {
  mirror_.forget();
  events_->reach_changed();
  end_cancelled();
  wait_for_word();
}

// A cancel that came too late waits for a message that may be lost with the connection. What the
// server has granted by it is found, and given up, when it is there again.
void RedisBackend::end_cancelled() {
  each_ask([this](Claim& claim) {
    if (claim.ask->cancelled) fail(claim, LockErrc::kInterrupted);
  });
}

// What is done with one may end others.
void RedisBackend::each_ask(const std::function<void(Claim&)>& act) {
  std::vector<uint64_t> ops;
  for (const auto& [op, claim] : by_op_) ops.push_back(op);
  for (const uint64_t op : ops) {
    if (Claim* claim = find_op(op)) act(*claim);
  }
}

std::string RedisBackend::trouble() const {
  if (!node_.up()) return node_.trouble();
  return node_.grace() ? "it has just started, and grants nothing until all have been heard" : "";
}

// Every claim goes; what was asked for is answered.
void RedisBackend::expired(const std::string& why) {
  std::vector<ClaimId> ids;
  std::vector<std::string> kept;
  for (const auto& [place, claim] : claims_) {
    if (claim.id != ClaimId::kNone) ids.push_back(claim.id);
    if (claim.id == ClaimId::kNone) kept.push_back(place);
  }
  for (const std::string& place : kept) erase(claims_.at(place));
  for (const ClaimId id : ids) {
    Claim* claim = find(id);
    if (claim == nullptr) continue;
    claim->held ? lose(*claim, why) : fail(*claim, LockErrc::kUnreachable);
  }
}

void RedisBackend::told(const std::vector<std::string_view>& parts) {
  if (parts.size() == 2 && parts[0] == "free") {
    const auto found = claims_.find(std::string(parts[1]));
    if (found == claims_.end() || !std::exchange(found->second.wanted, false)) return;
    if (!std::exchange(found->second.told_wanted, false)) return;
    return events_->uncontended(found->second.id);
  }
  if (parts.size() == 2 && parts[0] == "wanted") {
    const std::string place(parts[1]);
    const auto found = claims_.find(place);
    // What nobody here knows of stands in the way of others for nothing.
    if (found == claims_.end()) return node_.call({"release", place}, {});
    found->second.wanted = true;  // Also if the answer that grants it is still on its way.
    if (found->second.held) hint(found->second);
    return;
  }
  const auto op = parts.size() >= 2 ? redis::number_in<uint64_t>(parts[1]) : 0;
  if (parts.size() == 5 && parts[0] == "granted") {
    answered(op, {"granted", parts[2], parts[3], parts[4]});
  } else if (parts.size() == 2 && parts[0] == "refused") {
    answered(op, {"busy"});
  }
}

void RedisBackend::grace_ended() {
  events_->reach_changed();
  each_ask([this](Claim& claim) {
    if (!claim.ask->sent && !claim.ask->cancelled) send(claim);
  });
}

}  // namespace lockfs
