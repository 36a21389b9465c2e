// SPDX-License-Identifier: MIT
#include "backends/shm/shm_backend.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>
#include <vector>

namespace lockfs {
namespace {

using shm::LockSegment;
using Turn = LockSegment::Turn;

// A dying process's file is closed an instant before its byte locks are gone: look again soon,
// then later, for a host that is slow.
constexpr std::array<std::chrono::milliseconds, 5> kLooks = {
    std::chrono::milliseconds(0), std::chrono::milliseconds(1), std::chrono::milliseconds(10),
    std::chrono::milliseconds(100), std::chrono::milliseconds(1000)};

}  // namespace

ShmBackend::ShmBackend(EventLoop& loop, std::unique_ptr<shm::SharedSegment> segment)
    : loop_(loop),
      changes_(
          loop, std::move(segment), [this] { rung(); }, [this] { fail_waiting(); }) {
  traits_.name = "shm";
  traits_.contention_hints = true;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.value_block = false;
}

ShmBackend::~ShmBackend() {
  if (events_ == nullptr) return;
  for (const TimerId timer : {recheck_, deaths_}) loop_.timers.cancel(timer);
  loop_.unwatch(changes_.segment().watch_fd());
}

void ShmBackend::start(ClaimEvents& events) {
  events_ = &events;
  loop_.watch(changes_.segment().watch_fd(), [this] {
    changes_.segment().take_events();
    look_for_deaths(0);
    return true;
  });
  changes_.start();
}

void ShmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                         bool now) {
  const auto [it, fresh] = claims_.try_emplace(id);
  if (fresh) {
    it->second.key.reserve(lockspace.size() + 1 + name.size());
    it->second.key.append(lockspace).append(1, '\0').append(name);
  }
  if (take_kept(id, mode)) return granted(id, mode);
  const Mode told = it->second.told;
  const bool weaker = told != Mode::kNL && covers(told, mode);
  changes_.change(
      [this, id, space = std::string(lockspace), name = std::string(name), mode, now] {
        const auto found = claims_.find(id);
        if (found == claims_.end()) return Turn::kRefused;  // Lost meanwhile, and told.
        Claim& claim = found->second;
        const Turn turn =
            locks().acquire(self(), space, name, mode, now, claim.place, changes_.segment().wake());
        claim.tokens = {};
        claim.waiting = turn == Turn::kWaits;
        const bool has = turn == Turn::kGranted || turn == Turn::kWaits || claim.told != Mode::kNL;
        if (!has) claim.place.reset();
        return turn;
      },
      [this, id, mode](std::optional<Turn> turn) { acquired(id, mode, turn); },
      weaker ? kMust : kPatience);
}

// Without a change: what was kept, or another token of what is held.
bool ShmBackend::take_kept(ClaimId id, Mode mode) {
  if (changes_.is_broken() || changes_.waits()) return false;
  Claim& claim = claims_.at(id);
  const auto has_token = [&](const TokenBlock& tokens) {
    return !is_exclusive(mode) || tokens.next < tokens.end;
  };
  if (claim.told != Mode::kNL) {
    return claim.told == mode && !claim.waiting && is_exclusive(mode) && has_token(claim.tokens);
  }
  const auto kept = kept_.take(claim.key);
  if (!kept || !covers(kept->mode, mode) || !has_token(kept->tokens)) return false;
  bool taken = false;
  changes_.read([&] { taken = locks().retake(self(), kept->place, kept->mode, mode); });
  if (!taken) return false;
  claim.place = kept->place;
  claim.tokens = kept->tokens;
  return true;
}

// On release: true if nothing is left to be done in the segment.
bool ShmBackend::keep(const Claim& claim) {
  if (changes_.is_broken() || changes_.waits() || !claim.place || claim.waiting ||
      claim.told == Mode::kNL) {
    return false;
  }
  bool kept = false;
  changes_.read([&] { kept = locks().keep(self(), *claim.place); });
  if (!kept) return false;
  const auto too_many = kept_.put(claim.key, {*claim.place, claim.told, claim.tokens});
  if (!too_many) return true;
  changes_.change(
      [this, place = too_many->place] {
        locks().release_kept(self(), place);
        return true;
      },
      [](std::optional<bool> /*made*/) {}, kMust);
  return true;
}

void ShmBackend::acquired(ClaimId id, Mode mode, std::optional<Turn> turn) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || found->second.released) return;
  if (!turn) return undecided(id);
  switch (*turn) {
    case Turn::kGranted: return granted(id, mode);
    case Turn::kWaits: return recheck();
    case Turn::kRefused: return failed(id, LockErrc::kWouldBlock);
    case Turn::kDeadlock: return failed(id, LockErrc::kDeadlock);
    case Turn::kFull:
      spdlog::warn("shm: {} is full: all {} locks are held or pinned", changes_.segment().path(),
                   locks().lock_count());
      return failed(id, LockErrc::kLimit);
  }
}

void ShmBackend::granted(ClaimId id, Mode mode) {
  Claim& claim = claims_.at(id);
  TokenBlock token;
  if (is_exclusive(mode)) {
    const bool fresh = claim.tokens.next == claim.tokens.end;
    if (fresh && !changes_.read([&] { claim.tokens = locks().tokens(*claim.place); })) {
      return drop(id);
    }
    token.next = claim.tokens.next++;  // One at a time: what is left is for the next that takes it.
    token.end = token.next + 1;
  }
  kept_.forget(*claim.place);  // Of another name, which had this place before.
  claim.told = mode;
  events_->granted(id, mode, token);
}

// An acquire that was not made, or met damage: what the segment says now decides.
void ShmBackend::undecided(ClaimId id) {
  const Claim& claim = claims_.at(id);
  if (!claim.place) return failed(id, LockErrc::kUnreachable);
  shm::Claim now;
  const bool read = changes_.read([&] { now = locks().claim(self(), *claim.place); });
  if (read && claim.told != Mode::kNL && now.held == claim.told) {
    if (now.waits()) {
      changes_.change(
          [this, place = *claim.place] {
            return locks().cancel(self(), place, changes_.segment().wake());
          },
          [](std::optional<bool> /*made*/) {}, kMust);
    }
    return failed(id, LockErrc::kUnreachable);
  }
  drop(id);
}

// The end of an acquire without a grant.
void ShmBackend::failed(ClaimId id, LockErrc why) {
  const auto found = claims_.find(id);
  found->second.waiting = false;
  if (found->second.told == Mode::kNL) claims_.erase(found);
  events_->failed(id, why);
}

// What the segment says of the claim cannot be relied on: it is given up.
void ShmBackend::drop(ClaimId id) {
  const Claim claim = claims_.at(id);
  claims_.erase(id);
  if (claim.place) {
    changes_.change(
        [this, place = *claim.place] {
          locks().release(self(), place, changes_.segment().wake());
          return true;
        },
        [](std::optional<bool> /*made*/) {}, kMust);
  }
  if (claim.told == Mode::kNL) return events_->failed(id, LockErrc::kUnreachable);
  events_->lost(id, "its segment " + changes_.segment().path() + " is damaged");
}

void ShmBackend::cancel(ClaimId id) {
  changes_.change(
      [this, id] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.waiting) return false;
        Claim& claim = found->second;
        if (!locks().cancel(self(), *claim.place, changes_.segment().wake())) {
          return false;  // It has been granted: rung() will say so.
        }
        claim.waiting = false;
        if (claim.told == Mode::kNL) claim.place.reset();
        return true;
      },
      [this, id](std::optional<bool> cancelled) {
        // Not from within the verb. Damage is answered by fail_waiting().
        if (cancelled && *cancelled) changes_.post([this, id] { interrupted(id); });
      },
      kMust);
}

void ShmBackend::interrupted(ClaimId id) {
  const auto found = claims_.find(id);
  if (found != claims_.end() && !found->second.released) failed(id, LockErrc::kInterrupted);
}

void ShmBackend::release(ClaimId id) {
  const auto claim = claims_.find(id);
  if (claim == claims_.end()) return;
  if (keep(claim->second)) return void(claims_.erase(claim));
  claim->second.released = true;
  changes_.change(
      [this, id] {
        Claim& released = claims_.at(id);
        if (!released.place) return true;
        locks().release(self(), *released.place, changes_.segment().wake());
        released.place.reset();
        return true;
      },
      [this, id](std::optional<bool> /*made*/) { claims_.erase(id); }, kMust);
}

void ShmBackend::describe(ClaimId id, const Presence& who) {
  changes_.change(
      [this, id, who] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.place) return true;
        locks().describe(self(), *found->second.place, who);
        return true;
      },
      [](std::optional<bool> /*made*/) {}, kQuestionPatience);
}

void ShmBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  if (!changes_.waits() && !changes_.is_broken()) {
    if (auto seen = locks().look_outside(self(), lockspace, name)) {
      std::vector<RemoteLock> found;
      if (*seen) found.push_back(std::move(**seen));
      return events_->answered(query, LockErrc::kOk, std::move(found));
    }
  }
  changes_.change(
      [this, space = std::string(lockspace), name = std::string(name)] {
        std::vector<RemoteLock> seen;
        if (auto lock = locks().look(self(), space, name)) {
          seen.push_back(std::move(*lock));
        }
        return seen;
      },
      [this, query](std::optional<std::vector<RemoteLock>> locks) {
        events_->answered(query, locks ? LockErrc::kOk : LockErrc::kUnreachable,
                          std::move(locks).value_or(std::vector<RemoteLock>()));
      },
      kQuestionPatience);
}

void ShmBackend::list(QueryId query, std::string_view lockspace) {
  changes_.change(
      [this, space = std::string(lockspace)] { return locks().look_all(self(), space); },
      [this, query](std::optional<std::vector<RemoteLock>> locks) {
        events_->answered(query, locks ? LockErrc::kOk : LockErrc::kUnreachable,
                          std::move(locks).value_or(std::vector<RemoteLock>()));
      },
      kQuestionPatience);
}

void ShmBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                     const Pin& pin, bool fresh) {
  changes_.change([this, space = std::string(lockspace), name = std::string(name), pin,
                   fresh] { return locks().pin(space, name, pin, fresh); },
                  [this, query](std::optional<LockErrc> result) {
                    events_->answered(query, result.value_or(LockErrc::kUnreachable), {});
                  },
                  kQuestionPatience);
}

void ShmBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  changes_.change([this, space = std::string(lockspace),
                   name = std::string(name)] { return locks().unpin(space, name); },
                  [this, query](std::optional<LockErrc> result) {
                    events_->answered(query, result.value_or(LockErrc::kUnreachable), {});
                  },
                  kQuestionPatience);
}

// Somebody may have granted us what we wait for, or wait for what we hold.
void ShmBackend::rung() {
  std::vector<ClaimId> all;
  for (const auto& [id, claim] : claims_) {
    if (claim.place && !claim.released) all.push_back(id);
  }
  bool more = false;
  for (const ClaimId id : all) {
    const auto found = claims_.find(id);
    if (found == claims_.end() || !found->second.place || found->second.released) continue;
    Claim& claim = found->second;
    shm::Claim now;
    if (!changes_.read([&] { now = locks().claim(self(), *claim.place); })) return;
    more = more || (claim.waiting && now.waits());
    if (claim.waiting && !now.waits()) {
      claim.waiting = false;
      now.held == Mode::kNL ? drop(id) : granted(id, now.held);  // It may be released from there.
    }
    if (now.contended && claims_.contains(id)) events_->contended(id);
  }
  if (!more) return;
  // Whoever met damage rings all: we meet it by going there.
  changes_.change([] { return true; }, [](std::optional<bool> /*made*/) {}, kQuestionPatience);
}

// The segment is damaged: nobody will grant what waits.
void ShmBackend::fail_waiting() {
  trouble_ = "its segment " + changes_.segment().path() + " is damaged";
  events_->reach_changed();
  std::vector<ClaimId> waiting;
  for (const auto& [id, claim] : claims_) {
    if (claim.waiting && !claim.released) waiting.push_back(id);
  }
  for (const ClaimId id : waiting) {
    const auto found = claims_.find(id);
    if (found == claims_.end() || found->second.released) continue;
    found->second.waiting = false;
    undecided(id);
  }
}

void ShmBackend::recheck() {
  if (recheck_ != TimerId::kNone) return;
  recheck_ = loop_.timers.schedule(loop_.timers.now() + kRecheck, [this] {
    recheck_ = TimerId::kNone;
    const bool any = std::any_of(claims_.begin(), claims_.end(),
                                 [](const auto& each) { return each.second.waiting; });
    if (!any) return;
    recheck();
    bury_dead();
    rung();
  });
}

void ShmBackend::bury_dead() {
  if (!changes_.segment().any_dead()) return;
  changes_.change(
      [this] {
        changes_.segment().bury_dead();
        return true;
      },
      [](std::optional<bool> /*made*/) {}, kMust);
}

// Somebody has closed the segment, maybe by dying, or it is gone. Step by step, for the dead hold
// on for a while.
void ShmBackend::look_for_deaths(size_t step) {
  loop_.timers.cancel(std::exchange(deaths_, TimerId::kNone));
  if (step + 1 < kLooks.size()) {
    deaths_ = loop_.timers.schedule(loop_.timers.now() + kLooks[step + 1],
                                    [this, step] { look_for_deaths(step + 1); });
  }
  if (const auto why = changes_.segment().gone()) {
    return lose_all("its segment " + changes_.segment().path() + ": " + *why);
  }
  bury_dead();
  rung();  // The dead may have granted us something and not rung.
}

void ShmBackend::lose_all(const std::string& why) {
  if (!changes_.is_broken()) spdlog::error("shm: {}; all its locks are lost", why);
  changes_.give_up();
  trouble_ = why;
  events_->reach_changed();
  std::vector<ClaimId> ids;
  for (const auto& [id, claim] : claims_) {
    if (!claim.released) ids.push_back(id);
  }
  for (const ClaimId id : ids) {
    const auto found = claims_.find(id);
    if (found == claims_.end() || found->second.released) continue;
    const bool held = found->second.told != Mode::kNL;
    claims_.erase(found);
    held ? events_->lost(id, why) : events_->failed(id, LockErrc::kUnreachable);
  }
}

}  // namespace lockfs
