// SPDX-License-Identifier: MIT
// The way of a claim: asked for, granted, shown, wanted by others, kept, given up.
#include <spdlog/spdlog.h>

#include <utility>

#include "backends/key_values.h"
#include "backends/redis/redis_backend.h"
#include "core/processes.h"

namespace lockfs {

RedisBackend::Claim* RedisBackend::find(ClaimId id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

RedisBackend::Claim* RedisBackend::find_op(uint64_t op) {
  const auto found = by_op_.find(op);
  return found == by_op_.end() ? nullptr : found->second;
}

RedisBackend::Claim& RedisBackend::make(const std::string& place, ClaimId id) {
  Claim& claim = claims_[place];
  claim.place = place;
  claim.id = id;
  by_id_[id] = &claim;
  return claim;
}

void RedisBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                           bool now) {
  Claim* claim = find(id);
  if (claim == nullptr) {
    const std::string place = std::string(lockspace) + "/" + std::string(name);
    const auto kept = claims_.find(place);
    if (kept != claims_.end() && suffices(kept->second, mode)) {
      claim = &kept->second;
      unkeep(*claim);
      claim->id = id;
      by_id_[id] = claim;
      return take(*claim, mode);
    }
    if (kept != claims_.end()) drop(kept->second);  // To convert it could be a deadlock of two who
    claim = &make(place, id);                       // only keep.
  } else if (!claim->wanted && suffices(*claim, mode) &&
             (claim->shown.empty() || mode == *claim->held)) {
    return take(*claim, mode);
  }
  ask(*claim, {mode, {}, now});
}

// What is kept of the lock goes with no slot.
void RedisBackend::acquire_slots(ClaimId id, std::string_view lockspace, std::string_view name,
                                 SlotClaim slots, bool now) {
  Claim* claim = find(id);
  if (claim == nullptr) {
    const std::string place = std::string(lockspace) + "/" + std::string(name);
    if (const auto kept = claims_.find(place); kept != claims_.end()) drop(kept->second);
    claim = &make(place, id);
  }
  ask(*claim, {Mode::kCW, slots, now});
}

void RedisBackend::ask(Claim& claim, const Ask& what) {
  claim.ask = what;
  claim.ask->op = ++last_op_;
  by_op_[claim.ask->op] = &claim;
  node_.up() ? send(claim) : wait_for_server(claim);
}

// Can it be granted by what the server has granted before?
bool RedisBackend::suffices(const Claim& claim, Mode mode) const {
  const bool counts = is_exclusive(mode) && claim.tokens.next >= claim.tokens.end;
  return claim.held && claim.slots.count == 0 && covers(*claim.held, mode) && !counts &&
         node_.holds_lease();
}

// What it then has too much is given back when somebody wants it, or when it is shown: what is
// shown of a lock stands in the way of others, and is exact.
void RedisBackend::take(Claim& claim, Mode mode) {
  claim.told = mode;
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    tokens = {claim.tokens.next, claim.tokens.next + 1};
    ++claim.tokens.next;
  }
  events_->granted(claim.id, mode, tokens);
}

// A call that never fails: to hold less is always granted.
void RedisBackend::give_back(Claim& claim) {
  if (!claim.held || !node_.up()) return;
  node_.call({"acquire", claim.place, redis::mode_words(claim.told, claim.slots), "1",
              std::to_string(++last_op_), std::to_string(claim.slots.count),
              std::to_string(claim.slots.size)},
             {});
  claim.held = claim.told;
  claim.tokens = {};
}

void RedisBackend::send(Claim& claim) {
  Ask& ask = *claim.ask;
  if (!ask.sent && claim.held != claim.told) give_back(claim);
  ask.sent = true;
  loop_.timers.cancel(std::exchange(ask.patience, TimerId::kNone));
  node_.call(
      {"acquire", claim.place, redis::mode_words(ask.mode, ask.slots), ask.now ? "1" : "0",
       std::to_string(ask.op), std::to_string(ask.slots.count), std::to_string(ask.slots.size)},
      [this, op = ask.op](const Answer& answer) { answered(op, answer); },
      [this, op = ask.op] { refused(op); });
}

// The next connection may be better, as when the server has forgotten the script; but not for ever.
void RedisBackend::refused(uint64_t op) {
  Claim* claim = find_op(op);
  if (claim == nullptr || !std::exchange(claim->ask->refused, true)) return;
  fail(*claim, LockErrc::kUnreachable);
}

void RedisBackend::is_foreign(std::string_view key) {
  if (std::exchange(foreign_, key) == key) return;
  spdlog::warn(
      "redis: {}: somebody else has made the key {}: its lock is not granted until that is "
      "deleted",
      server_, key);
}

// The server may be back in a moment.
void RedisBackend::wait_for_server(Claim& claim) {
  if (node_.refused()) return fail(claim, LockErrc::kUnreachable);
  loop_.timers.cancel(claim.ask->patience);  // Asked for while the connection went down.
  claim.ask->patience =
      loop_.timers.schedule(loop_.timers.now() + kPatience, [this, op = claim.ask->op] {
        Claim* late = find_op(op);
        if (late == nullptr) return;
        late->ask->patience = TimerId::kNone;
        fail(*late, LockErrc::kUnreachable);
      });
}

// Who has no place in the server's queue waits for it like all who ask now.
void RedisBackend::wait_for_word() {
  each_ask([this](Claim& claim) {
    if (!claim.ask->queued) wait_for_server(claim);
  });
}

// By the answer or by a message, whichever comes first. Without a word the connection ended; the
// same is asked again on the next.
void RedisBackend::answered(uint64_t op, const Answer& answer) {
  Claim* claim = find_op(op);
  if (claim == nullptr || answer.empty()) return;
  claim->ask->refused = false;
  const std::string_view what = answer.front();
  const auto mode = answer.size() == 4 ? redis::mode_in(answer[1]) : std::nullopt;
  if (what == "granted" && mode) return granted(*claim, *mode, answer[2], answer[3] == "1");
  if (what == "busy") return fail(*claim, LockErrc::kWouldBlock);
  if (what == "size") return fail(*claim, LockErrc::kInvalid);
  if (what == "foreign") {
    is_foreign(answer.back());
    return fail(*claim, LockErrc::kUnreachable);
  }
  if (what == "deadlock") {
    // Then the server has what was given up in a silence, and was granted since.
    if (!claim->held) node_.call({"release", claim->place}, {});
    return fail(*claim, LockErrc::kDeadlock);
  }
  claim->ask->queued = what == "queued";  // Then a message follows.
  if (what != "grace") return;
  if (claim->ask->cancelled) return fail(*claim, LockErrc::kInterrupted);
  if (claim->ask->now) return fail(*claim, LockErrc::kUnreachable);
  claim->ask->sent = false;
}

void RedisBackend::granted(Claim& claim, Mode mode, std::string_view last, bool contended) {
  claim.slots = claim.ask->slots;
  end_ask(claim);
  claim.held = mode;
  claim.told = mode;
  claim.wanted = claim.wanted || contended;
  claim.told_wanted = false;  // Of what it was.
  claim.tokens = {};
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    const auto before = redis::number_in<uint64_t>(last);
    claim.tokens = {before + 2, before + 1 + kTokens};
    tokens = {before + 1, before + 2};
  }
  const ClaimId id = claim.id;
  events_->granted(id, mode, tokens);
  Claim* after = find(id);
  if (after != nullptr && after->held && after->wanted) hint(*after);
}

void RedisBackend::end_ask(Claim& claim) {
  if (!claim.ask) return;
  loop_.timers.cancel(claim.ask->patience);
  by_op_.erase(claim.ask->op);
  claim.ask.reset();
}

// The end of an acquire without a grant. What the claim had before it still has.
void RedisBackend::fail(Claim& claim, LockErrc why) {
  const ClaimId id = claim.id;
  end_ask(claim);
  if (!claim.held) erase(claim);
  events_->failed(id, why);
}

void RedisBackend::cancel(ClaimId id) {
  Claim* claim = find(id);
  if (claim == nullptr || !claim->ask || claim->ask->cancelled) return;
  claim->ask->cancelled = true;
  const auto interrupted = [this, op = claim->ask->op] {
    if (Claim* ended = find_op(op)) fail(*ended, LockErrc::kInterrupted);
  };
  // What the server may have of it, it is told when it is there again.
  if (!node_.up() || !claim->ask->sent) return outlet_->post(interrupted);
  node_.call({"cancel", claim->place, std::to_string(claim->ask->op)},
             [interrupted](const Answer& answer) {
               if (answer.empty() || answer.front() == "interrupted") interrupted();
             });
}

void RedisBackend::release(ClaimId id) {
  Claim* claim = find(id);
  if (claim == nullptr) return;
  may_keep(*claim) ? keep(*claim) : drop(*claim);
}

// Somebody waits for what the claim holds: it is given up if it is only kept; else whoever would
// not wait is told that it is in use.
void RedisBackend::hint(Claim& claim) {
  claim.wanted = true;
  if (claim.id == ClaimId::kNone) return drop(claim);
  if (!claim.ask && claim.held != claim.told) give_back(claim);
  if (claim.shown.empty()) show(claim, "host=" + quoted_value(host_name()));
  if (std::exchange(claim.told_wanted, true)) return;
  outlet_->post([this, id = claim.id] {
    if (const Claim* still = find(id); still != nullptr && still->wanted) events_->contended(id);
  });
}

bool RedisBackend::may_keep(const Claim& claim) const {
  return claim.held && *claim.held != Mode::kNL && claim.slots.count == 0 && !claim.ask &&
         !claim.wanted && !claim.resuming && node_.holds_lease();
}

void RedisBackend::keep(Claim& claim) {
  by_id_.erase(std::exchange(claim.id, ClaimId::kNone));
  show(claim, "");
  claim.kept_since = loop_.timers.now();
  claim.kept_at = kept_.insert(kept_.end(), &claim);
  if (kept_.size() > kMostKept) drop(*kept_.front());
  if (expiry_ != TimerId::kNone || kept_.empty()) return;
  expiry_ = loop_.timers.schedule(loop_.timers.now() + kKeepTime, [this] { expire_kept(); });
}

void RedisBackend::unkeep(Claim& claim) { kept_.erase(claim.kept_at); }

void RedisBackend::expire_kept() {
  expiry_ = TimerId::kNone;
  const TimePoint now = loop_.timers.now();
  while (!kept_.empty() && kept_.front()->kept_since + kKeepTime <= now) drop(*kept_.front());
  if (kept_.empty()) return;
  expiry_ = loop_.timers.schedule(kept_.front()->kept_since + kKeepTime, [this] { expire_kept(); });
}

// What the server has of it is released, now or when it is there again.
void RedisBackend::drop(Claim& claim) {
  const bool known = claim.held || (claim.ask && claim.ask->sent);
  if (known && node_.up()) node_.call({"release", claim.place}, {});
  erase(claim);
}

void RedisBackend::erase(Claim& claim) {
  if (claim.id == ClaimId::kNone) unkeep(claim);
  end_ask(claim);
  by_id_.erase(claim.id);
  claims_.erase(std::string(claim.place));
}

}  // namespace lockfs
