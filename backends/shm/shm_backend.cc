// SPDX-License-Identifier: MIT
#include "backends/shm/shm_backend.h"

#include <spdlog/spdlog.h>

#include <array>
#include <chrono>
#include <csignal>
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

// Interrupts the listener's wait for the segment.
int interrupt_signal() { return SIGRTMIN; }

}  // namespace

ShmBackend::ShmBackend(EventLoop& loop, std::unique_ptr<shm::SharedSegment> segment)
    : loop_(loop), segment_(std::move(segment)), self_(std::make_shared<ShmBackend*>(this)) {
  traits_.name = "shm";
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
}

ShmBackend::~ShmBackend() {
  *self_ = nullptr;
  if (!listener_.joinable()) return;
  loop_.timers.cancel(patience_);
  loop_.timers.cancel(deaths_);
  loop_.unwatch(segment_->watch_fd());
  stopped_ = true;
  segment_->ring(segment_->self());
  while (!ended_) {  // A signal that comes before its wait is lost.
    pthread_kill(listener_.native_handle(), interrupt_signal());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  listener_.join();
}

void ShmBackend::start(ClaimEvents& events) {
  events_ = &events;
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  sigaction(interrupt_signal(), &nothing, nullptr);
  loop_.watch(segment_->watch_fd(), [this] {
    if (segment_->deleted()) lose_all(segment_->path() + " was deleted");
    look_for_deaths(0);
    return true;
  });
  listener_ = std::thread([this] { listen(); });
}

// Tells the loop, unless this is gone by then.
void ShmBackend::post(void (ShmBackend::*work)()) {
  loop_.post([self = self_, work] {
    if (*self != nullptr) ((*self)->*work)();
  });
}

void ShmBackend::listen() {
  uint32_t heard = segment_->bell();
  while (!stopped_) {
    if (wants_segment_) {
      if (segment_->wait_to_enter() != LockErrc::kOk) continue;
      wants_segment_ = false;
      post(&ShmBackend::make_backlog);
    }
    heard = segment_->listen(heard);
    post(&ShmBackend::rung);
  }
  ended_ = true;
}

// Reads or enters the segment; false when its bytes do not allow it.
bool ShmBackend::guarded(const std::function<void()>& work) {
  try {
    work();
    return true;
  } catch (const shm::DamagedSegment& damage) {
    if (std::exchange(broken_, true)) return false;
    spdlog::error(
        "shm: {} is damaged ({}): no lock of it is granted any more; unmount all that use it, "
        "remove it, mount again",
        segment_->path(), damage.what());
    return false;
  }
}

// Makes a change, within the segment; nullopt when its bytes do not allow it. What follows from
// the truth is mended.
template <typename Make>
auto ShmBackend::attempt(Make& make) -> std::optional<decltype(make())> {
  try {
    return make();
  } catch (const shm::DamagedSegment& damage) {
    spdlog::warn("shm: {}: {}; mending it", segment_->path(), damage.what());
  }
  std::optional<decltype(make())> result;
  guarded([&] {
    segment_->locks().repair(segment_->wake());
    result = make();
  });
  return result;
}

// Makes a change of the segment, now or when its turn comes, and tells what came of it.
template <typename Make, typename Tell>
void ShmBackend::change(Make make, Tell tell, bool must) {
  using Result = decltype(make());
  if (backlog_.empty()) {
    bool within = false;
    if ((broken_ && !must) || !guarded([&] { within = segment_->enter(); })) {
      return tell(std::optional<Result>());
    }
    if (within) {
      const std::optional<Result> result = attempt(make);
      result ? segment_->leave() : segment_->abandon();
      return tell(result);
    }
    patience_ =
        loop_.timers.schedule(loop_.timers.now() + kPatience, [this] { give_up_backlog(); });
    wants_segment_ = true;
    segment_->ring(segment_->self());
  }
  Change waiting;
  waiting.make = [this, make, tell]() mutable -> Then {
    std::optional<Result> result = broken_ ? std::nullopt : attempt(make);
    return [tell, result]() mutable { tell(result); };
  };
  if (!must) waiting.give_up = [tell]() mutable { tell(std::optional<Result>()); };
  backlog_.push_back(std::move(waiting));
}

// The listener is within the segment, for us.
void ShmBackend::make_backlog() {
  loop_.timers.cancel(std::exchange(patience_, TimerId::kNone));
  const bool within = guarded([this] { segment_->entered(); });
  std::vector<Then> told;
  for (Change& change : std::exchange(backlog_, {})) told.push_back(change.make());
  if (within) broken_ ? segment_->abandon() : segment_->leave();
  for (const Then& tell : told) tell();
}

// A mount was stopped within a change. What cannot wait is answered; the rest stays.
void ShmBackend::give_up_backlog() {
  patience_ = loop_.timers.schedule(loop_.timers.now() + kPatience, [this] { give_up_backlog(); });
  spdlog::error("shm: {} is kept by {}", segment_->path(), segment_->who_is_within());
  std::vector<Then> told;
  for (Change& change : backlog_) {
    if (!change.give_up) continue;
    told.push_back(std::exchange(change.give_up, nullptr));
    change.make = [] { return [] {}; };
  }
  for (const Then& tell : told) tell();
}

void ShmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                         bool now) {
  claims_.try_emplace(id);
  change(
      [this, id, space = std::string(lockspace), name = std::string(name), mode, now] {
        Claim& claim = claims_.at(id);
        const Turn turn = segment_->locks().acquire(segment_->self(), space, name, mode, now,
                                                    claim.place, segment_->wake());
        claim.placed = turn == Turn::kGranted || turn == Turn::kWaits || claim.held != Mode::kNL;
        claim.waiting = turn == Turn::kWaits;
        if (turn == Turn::kGranted) claim.held = mode;
        return turn;
      },
      [this, id, mode](std::optional<Turn> turn) { acquired(id, mode, turn); });
}

void ShmBackend::acquired(ClaimId id, Mode mode, std::optional<Turn> turn) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || found->second.released) return;
  if (!turn) return failed(id, LockErrc::kUnreachable);
  switch (*turn) {
    case Turn::kGranted: {
      TokenBlock tokens;
      const bool read = !is_exclusive(mode) ||
                        guarded([&] { tokens = segment_->locks().tokens(found->second.place); });
      if (!read) return failed(id, LockErrc::kUnreachable);
      return events_->granted(id, mode, tokens);
    }
    case Turn::kWaits: return;
    case Turn::kRefused: return failed(id, LockErrc::kWouldBlock);
    case Turn::kDeadlock: return failed(id, LockErrc::kDeadlock);
    case Turn::kFull:
      spdlog::warn("shm: {} is full: all {} locks are held or pinned", segment_->path(),
                   segment_->locks().lock_count());
      return failed(id, LockErrc::kLimit);
  }
}

// The end of an acquire without a grant.
void ShmBackend::failed(ClaimId id, LockErrc why) {
  const auto found = claims_.find(id);
  found->second.waiting = false;
  if (found->second.held == Mode::kNL) claims_.erase(found);
  events_->failed(id, why);
}

void ShmBackend::cancel(ClaimId id) {
  change(
      [this, id] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.waiting) return false;
        return segment_->locks().cancel(segment_->self(), found->second.place, segment_->wake());
      },
      [this, id](std::optional<bool> cancelled) {
        const auto found = claims_.find(id);
        if (found == claims_.end() || found->second.released || !found->second.waiting) return;
        if (!cancelled || *cancelled) failed(id, LockErrc::kInterrupted);
      },
      true);
}

void ShmBackend::release(ClaimId id) {
  const auto claim = claims_.find(id);
  if (claim == claims_.end()) return;
  claim->second.released = true;
  change(
      [this, id] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.placed) return true;
        segment_->locks().release(segment_->self(), found->second.place, segment_->wake());
        return true;
      },
      [this, id](std::optional<bool> /*made*/) { claims_.erase(id); }, true);
}

void ShmBackend::describe(ClaimId id, const Presence& who) {
  change(
      [this, id, who] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.placed) return true;
        segment_->locks().describe(segment_->self(), found->second.place, who);
        return true;
      },
      [](std::optional<bool> /*made*/) {});
}

void ShmBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  change(
      [this, space = std::string(lockspace), name = std::string(name)] {
        std::vector<RemoteLock> locks;
        if (auto lock = segment_->locks().look(segment_->self(), space, name)) {
          locks.push_back(std::move(*lock));
        }
        return locks;
      },
      [this, query](std::optional<std::vector<RemoteLock>> locks) {
        events_->answered(query, locks ? LockErrc::kOk : LockErrc::kUnreachable,
                          std::move(locks).value_or(std::vector<RemoteLock>()));
      });
}

void ShmBackend::list(QueryId query, std::string_view lockspace) {
  change([this, space = std::string(
                    lockspace)] { return segment_->locks().look_all(segment_->self(), space); },
         [this, query](std::optional<std::vector<RemoteLock>> locks) {
           events_->answered(query, locks ? LockErrc::kOk : LockErrc::kUnreachable,
                             std::move(locks).value_or(std::vector<RemoteLock>()));
         });
}

void ShmBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                     const Pin& pin, bool fresh) {
  change([this, space = std::string(lockspace), name = std::string(name), pin,
          fresh] { return segment_->locks().pin(space, name, pin, fresh); },
         [this, query](std::optional<LockErrc> result) {
           events_->answered(query, result.value_or(LockErrc::kUnreachable), {});
         });
}

void ShmBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  change([this, space = std::string(lockspace),
          name = std::string(name)] { return segment_->locks().unpin(space, name); },
         [this, query](std::optional<LockErrc> result) {
           events_->answered(query, result.value_or(LockErrc::kUnreachable), {});
         });
}

// Somebody may have granted us what we wait for.
void ShmBackend::rung() {
  std::vector<ClaimId> waiting;
  for (const auto& [id, claim] : claims_) {
    if (claim.waiting && !claim.released) waiting.push_back(id);
  }
  for (const ClaimId id : waiting) {
    const auto found = claims_.find(id);
    if (found == claims_.end() || !found->second.waiting || found->second.released) continue;
    Claim& claim = found->second;
    shm::Claim now;
    if (!guarded([&] { now = segment_->locks().claim(segment_->self(), claim.place); })) {
      failed(id, LockErrc::kUnreachable);
    } else if (!now.waits()) {
      claim.waiting = false;
      claim.held = now.held;
      acquired(id, now.held, Turn::kGranted);
    }
  }
}

// Somebody has closed the segment, maybe by dying. Step by step, for the dead hold on for a while.
void ShmBackend::look_for_deaths(size_t step) {
  loop_.timers.cancel(std::exchange(deaths_, TimerId::kNone));
  if (step + 1 < kLooks.size()) {
    deaths_ = loop_.timers.schedule(loop_.timers.now() + kLooks[step + 1],
                                    [this, step] { look_for_deaths(step + 1); });
  }
  bool dead = false;
  guarded([&] { dead = segment_->any_dead(); });
  if (dead) {
    change(
        [this] {
          segment_->bury_dead();
          return true;
        },
        [](std::optional<bool> /*made*/) {});
  }
  rung();  // The dead may have granted us something and not rung.
}

void ShmBackend::lose_all(const std::string& why) {
  broken_ = true;
  std::vector<ClaimId> ids;
  for (const auto& [id, claim] : claims_) {
    if (!claim.released) ids.push_back(id);
  }
  for (const ClaimId id : ids) {
    const auto found = claims_.find(id);
    if (found == claims_.end()) continue;
    const bool held = found->second.held != Mode::kNL;
    claims_.erase(found);
    held ? events_->lost(id, why) : events_->failed(id, LockErrc::kUnreachable);
  }
}

}  // namespace lockfs
