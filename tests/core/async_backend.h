// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_backend.h"

namespace lockfs {

/// A backend that knows of no other node's claims and of no pins.
class BlindBackend : public LockBackend {
 public:
  void start(ClaimEvents& events) override { events_ = &events; }
  void describe(ClaimId, const Presence&) override {}
  void inspect(QueryId query, std::string_view, std::string_view) override { nothing(query); }
  void list(QueryId query, std::string_view) override { nothing(query); }
  void pin(QueryId query, std::string_view, std::string_view, const Pin&, bool) override {
    nothing(query);
  }
  void unpin(QueryId query, std::string_view, std::string_view) override { nothing(query); }

 protected:
  ClaimEvents* events_ = nullptr;

 private:
  void nothing(QueryId query) { events_->answered(query, LockErrc::kOk, {}); }
};

/// A backend that answers only when a test tells it to, and notes every verb. It is also the
/// contract's referee: a verb that the table must not use counts as a breach.
class AsyncBackend : public BlindBackend {
 public:
  struct Ask {
    ClaimId claim = ClaimId::kNone;
    std::string name;
    Mode mode = Mode::kNL;
    bool now = false;
    bool cancelled = false;
    uint32_t slots = 0;
    uint32_t size = 0;
  };

  AsyncBackend() {
    traits_.name = "async";
    traits_.other_nodes = true;
    traits_.contention_hints = true;
    traits_.value_block = false;
  }
  const LockTraits& traits() const override { return traits_; }
  LockTraits& change_traits() { return traits_; }

  void acquire(ClaimId claim, std::string_view /*lockspace*/, std::string_view name, Mode mode,
               bool now) override {
    take_note({claim, std::string(name), mode, now, false, 0, 0});
  }
  void acquire_slots(ClaimId claim, std::string_view /*lockspace*/, std::string_view name,
                     SlotClaim slots, bool now) override {
    if (slots.count == 0 || slots.count > slots.size) ++breaches;
    take_note({claim, std::string(name), Mode::kCW, now, false, slots.count, slots.size});
  }
  void take_note(const Ask& asked) {
    const ClaimId claim = asked.claim;
    if (pending(claim) != nullptr) ++breaches;  // One acquire of a claim at a time.
    asks.push_back(asked);
    if (refuse_at_once) {
      const LockErrc why = *refuse_at_once;
      if (refuse_once) refuse_at_once.reset();
      asks.pop_back();
      events_->failed(claim, why);
    } else if (grant_at_once_with) {
      grant(*grant_at_once_with);
    }
  }
  void cancel(ClaimId claim) override {
    Ask* ask = pending(claim);
    if (ask == nullptr) {
      ++breaches;
      return;
    }
    ask->cancelled = true;
  }
  void release(ClaimId claim) override {
    released.push_back(claim);
    std::erase_if(asks, [&](const Ask& ask) { return ask.claim == claim; });
  }

  /// The oldest acquire without an answer.
  const Ask& oldest() const { return asks.front(); }
  /// Answers the oldest acquire with a grant of what it asked for, and `tokens` tokens.
  void grant(uint64_t tokens = 1) {
    const Ask ask = take();
    const uint64_t first = next_token;
    next_token += tokens;
    events_->granted(ask.claim, ask.mode, {first, next_token});
  }
  void fail(LockErrc why) { events_->failed(take().claim, why); }
  ClaimEvents& events() { return *events_; }

  std::vector<Ask> asks;
  std::vector<ClaimId> released;
  std::optional<LockErrc> refuse_at_once;
  bool refuse_once = false;                    ///< And no more after it.
  std::optional<uint64_t> grant_at_once_with;  ///< That many tokens.
  uint64_t next_token = 1;
  int breaches = 0;

 private:
  Ask* pending(ClaimId claim) {
    const auto it =
        std::find_if(asks.begin(), asks.end(), [&](const Ask& ask) { return ask.claim == claim; });
    return it == asks.end() ? nullptr : &*it;
  }
  Ask take() {
    const Ask ask = asks.front();
    asks.erase(asks.begin());
    return ask;
  }

  LockTraits traits_;
};

}  // namespace lockfs
