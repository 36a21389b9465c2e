// SPDX-License-Identifier: MIT
#include "backends/shm/shm_backend.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <utility>
#include <vector>

#include "backends/worker_thread.h"

namespace lockfs {
namespace {

using shm::LockSegment;
using Turn = LockSegment::Turn;

// A dying process's file is closed an instant before its byte locks are gone: look again soon,
// then later, for a host that is slow.
constexpr std::array<std::chrono::milliseconds, 5> kLooks = {
    std::chrono::milliseconds(0), std::chrono::milliseconds(1), std::chrono::milliseconds(10),
    std::chrono::milliseconds(100), std::chrono::milliseconds(1000)};

// When the kernel has no memory for a lock, the listener tries again.
constexpr auto kNoMemory = std::chrono::milliseconds(100);

// Interrupts the listener's wait for the segment.
int interrupt_signal() { return SIGRTMIN; }

}  // namespace

ShmBackend::ShmBackend(EventLoop& loop, std::unique_ptr<shm::SharedSegment> segment)
    : loop_(loop), segment_(std::move(segment)), self_(std::make_shared<ShmBackend*>(this)) {
  traits_.name = "shm";
  traits_.contention_hints = true;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.value_block = false;
}

ShmBackend::~ShmBackend() {
  *self_ = nullptr;
  if (!listener_.joinable()) return;
  for (const TimerId timer : {patience_, recheck_, deaths_}) loop_.timers.cancel(timer);
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
    segment_->take_events();
    if (const auto why = segment_->gone())
      lose_all("its segment " + segment_->path() + ": " + *why);
    look_for_deaths(0);
    return true;
  });
  // The count before anything can be asked, so that no ring is missed.
  listener_ =
      worker_thread([this, heard = segment_->bell()] { listen(heard); }, interrupt_signal());
}

// Tells the loop, unless this is gone by then.
void ShmBackend::post(std::function<void(ShmBackend&)> work) {
  loop_.post([self = self_, work = std::move(work)] {
    if (*self != nullptr) work(**self);
  });
}

void ShmBackend::listen(uint32_t heard) {
  while (!stopped_) {
    if (wants_segment_) {
      const LockErrc result = segment_->wait_to_enter();
      if (result == LockErrc::kUnreachable) std::this_thread::sleep_for(kNoMemory);
      if (result != LockErrc::kOk) continue;
      wants_segment_ = false;
      post([](ShmBackend& self) { self.make_backlog(); });
    }
    heard = segment_->listen(heard);
    post([](ShmBackend& self) { self.rung(); });
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
    post([](ShmBackend& self) { self.fail_waiting(); });
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
    if (!broken_) spdlog::warn("shm: {}: {}; mending it", segment_->path(), damage.what());
  }
  std::optional<decltype(make())> result;
  guarded([&] {
    segment_->locks().repair(segment_->wake());
    result = make();
  });
  return result;
}

// Makes a change of the segment, now or when its turn comes, and tells what came of it; nullopt:
// nobody can say, or it was not made.
template <typename Make, typename Tell>
void ShmBackend::change(Make make, Tell tell, std::optional<Duration> patience) {
  using Result = decltype(make());
  const bool must = !patience;
  if (!asked_) {
    bool within = false;
    if ((broken_ && !must) || !guarded([&] { within = segment_->enter(); })) {
      return tell(std::optional<Result>());
    }
    if (within) {
      const std::optional<Result> result = attempt(make);
      result ? segment_->leave() : segment_->abandon();
      return tell(result);
    }
    asked_ = true;
    wants_segment_ = true;
    segment_->ring(segment_->self());
  }
  Change waiting;
  waiting.make = [this, make, tell, must]() mutable -> Then {
    std::optional<Result> result = broken_ && !must ? std::nullopt : attempt(make);
    return [tell, result]() mutable { tell(result); };
  };
  waiting.give_up = [tell]() mutable { tell(std::optional<Result>()); };
  if (patience) waiting.until = loop_.timers.now() + *patience;
  backlog_.push_back(std::move(waiting));
  schedule_giving_up();
}

// The listener is within the segment, for us.
void ShmBackend::make_backlog() {
  asked_ = false;
  loop_.timers.cancel(std::exchange(patience_, TimerId::kNone));
  const bool within = guarded([this] { segment_->entered(); });
  std::vector<Then> told;
  for (Change& change : std::exchange(backlog_, {})) {
    told.push_back(within ? change.make() : std::move(change.give_up));
  }
  if (within) broken_ ? segment_->abandon() : segment_->leave();
  for (const Then& tell : told) tell();
}

void ShmBackend::schedule_giving_up() {
  if (patience_ != TimerId::kNone) return;
  std::optional<TimePoint> first;
  for (const Change& change : backlog_) {
    if (change.until && (!first || *change.until < *first)) first = change.until;
  }
  if (first) patience_ = loop_.timers.schedule(*first, [this] { give_up_backlog(); });
}

// A mount was stopped within a change. What cannot wait is answered; the rest stays.
void ShmBackend::give_up_backlog() {
  patience_ = TimerId::kNone;
  spdlog::error("shm: {} is kept by {}", segment_->path(), segment_->who_is_within());
  std::vector<Then> told;
  std::erase_if(backlog_, [&](Change& change) {
    if (!change.until || *change.until > loop_.timers.now()) return false;
    told.push_back(std::move(change.give_up));
    return true;
  });
  schedule_giving_up();
  for (const Then& tell : told) tell();
}

void ShmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                         bool now) {
  const Mode told = claims_.try_emplace(id).first->second.told;
  const bool weaker = told != Mode::kNL && covers(told, mode);
  change(
      [this, id, space = std::string(lockspace), name = std::string(name), mode, now] {
        const auto found = claims_.find(id);
        if (found == claims_.end()) return Turn::kRefused;  // Lost meanwhile, and told.
        Claim& claim = found->second;
        const Turn turn = segment_->locks().acquire(segment_->self(), space, name, mode, now,
                                                    claim.place, segment_->wake());
        claim.waiting = turn == Turn::kWaits;
        const bool has = turn == Turn::kGranted || turn == Turn::kWaits || claim.told != Mode::kNL;
        if (!has) claim.place.reset();
        return turn;
      },
      [this, id, mode](std::optional<Turn> turn) { acquired(id, mode, turn); },
      weaker ? kMust : kPatience);
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
      spdlog::warn("shm: {} is full: all {} locks are held or pinned", segment_->path(),
                   segment_->locks().lock_count());
      return failed(id, LockErrc::kLimit);
  }
}

void ShmBackend::granted(ClaimId id, Mode mode) {
  Claim& claim = claims_.at(id);
  TokenBlock tokens;
  const bool read =
      !is_exclusive(mode) || guarded([&] { tokens = segment_->locks().tokens(*claim.place); });
  if (!read) return drop(id);
  claim.told = mode;
  events_->granted(id, mode, tokens);
}

// An acquire that was not made, or met damage: what the segment says now decides.
void ShmBackend::undecided(ClaimId id) {
  const Claim& claim = claims_.at(id);
  if (!claim.place) return failed(id, LockErrc::kUnreachable);
  shm::Claim now;
  const bool read = guarded([&] { now = segment_->locks().claim(segment_->self(), *claim.place); });
  if (read && claim.told != Mode::kNL && now.held == claim.told) {
    if (now.waits()) {
      change(
          [this, place = *claim.place] {
            return segment_->locks().cancel(segment_->self(), place, segment_->wake());
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
    change(
        [this, place = *claim.place] {
          segment_->locks().release(segment_->self(), place, segment_->wake());
          return true;
        },
        [](std::optional<bool> /*made*/) {}, kMust);
  }
  if (claim.told == Mode::kNL) return events_->failed(id, LockErrc::kUnreachable);
  events_->lost(id, "its segment " + segment_->path() + " is damaged");
}

void ShmBackend::cancel(ClaimId id) {
  change(
      [this, id] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.waiting) return false;
        Claim& claim = found->second;
        if (!segment_->locks().cancel(segment_->self(), *claim.place, segment_->wake())) {
          return false;  // It has been granted: rung() will say so.
        }
        claim.waiting = false;
        if (claim.told == Mode::kNL) claim.place.reset();
        return true;
      },
      [this, id](std::optional<bool> cancelled) {
        // Not from within the verb. Damage is answered by fail_waiting().
        if (cancelled && *cancelled) post([id](ShmBackend& self) { self.interrupted(id); });
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
  claim->second.released = true;
  change(
      [this, id] {
        Claim& released = claims_.at(id);
        if (!released.place) return true;
        segment_->locks().release(segment_->self(), *released.place, segment_->wake());
        released.place.reset();
        return true;
      },
      [this, id](std::optional<bool> /*made*/) { claims_.erase(id); }, kMust);
}

void ShmBackend::describe(ClaimId id, const Presence& who) {
  change(
      [this, id, who] {
        const auto found = claims_.find(id);
        if (found == claims_.end() || !found->second.place) return true;
        segment_->locks().describe(segment_->self(), *found->second.place, who);
        return true;
      },
      [](std::optional<bool> /*made*/) {}, kQuestionPatience);
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
      },
      kQuestionPatience);
}

void ShmBackend::list(QueryId query, std::string_view lockspace) {
  change([this, space = std::string(
                    lockspace)] { return segment_->locks().look_all(segment_->self(), space); },
         [this, query](std::optional<std::vector<RemoteLock>> locks) {
           events_->answered(query, locks ? LockErrc::kOk : LockErrc::kUnreachable,
                             std::move(locks).value_or(std::vector<RemoteLock>()));
         },
         kQuestionPatience);
}

void ShmBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                     const Pin& pin, bool fresh) {
  change([this, space = std::string(lockspace), name = std::string(name), pin,
          fresh] { return segment_->locks().pin(space, name, pin, fresh); },
         [this, query](std::optional<LockErrc> result) {
           events_->answered(query, result.value_or(LockErrc::kUnreachable), {});
         },
         kQuestionPatience);
}

void ShmBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  change([this, space = std::string(lockspace),
          name = std::string(name)] { return segment_->locks().unpin(space, name); },
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
    if (!guarded([&] { now = segment_->locks().claim(segment_->self(), *claim.place); })) return;
    if (claim.waiting && !now.waits()) {
      claim.waiting = false;
      now.held == Mode::kNL ? drop(id) : granted(id, now.held);
    }
    more = more || claim.waiting;
    if (now.contended && claims_.contains(id)) events_->contended(id);
  }
  if (!more) return;
  // Whoever met damage rings all: we meet it by going there.
  change([] { return true; }, [](std::optional<bool> /*made*/) {}, kQuestionPatience);
}

// The segment is damaged: nobody will grant what waits.
void ShmBackend::fail_waiting() {
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
  if (!segment_->any_dead()) return;
  change(
      [this] {
        segment_->bury_dead();
        return true;
      },
      [](std::optional<bool> /*made*/) {}, kMust);
}

// Somebody has closed the segment, maybe by dying. Step by step, for the dead hold on for a while.
void ShmBackend::look_for_deaths(size_t step) {
  loop_.timers.cancel(std::exchange(deaths_, TimerId::kNone));
  if (step + 1 < kLooks.size()) {
    deaths_ = loop_.timers.schedule(loop_.timers.now() + kLooks[step + 1],
                                    [this, step] { look_for_deaths(step + 1); });
  }
  bury_dead();
  rung();  // The dead may have granted us something and not rung.
}

void ShmBackend::lose_all(const std::string& why) {
  if (!std::exchange(broken_, true)) spdlog::error("shm: {}; all its locks are lost", why);
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
