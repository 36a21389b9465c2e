// SPDX-License-Identifier: MIT
#pragma once
#include "core/lock_backend.h"

namespace lockfs {

/// `memory:`, the table alone: there are no other nodes, so every claim is granted at once, and
/// the table's own pins are all there are.
/// Tokens count up from the wall clock in microseconds at start, so they grow over a restart as
/// long as the clock is not set back and fewer than a million claims a second were granted.
class MemoryBackend final : public LockBackend {
 public:
  MemoryBackend();
  const LockTraits& traits() const override { return traits_; }
  void start(ClaimEvents& events) override { events_ = &events; }
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId /*claim*/) override {}  // Nothing is ever pending.
  void release(ClaimId /*claim*/) override {}
  void describe(ClaimId /*claim*/, const Presence& /*who*/) override {}
  void inspect(QueryId query, std::string_view /*lockspace*/, std::string_view /*name*/) override {
    events_->answered(query, LockErrc::kOk, {});
  }
  void list(QueryId query, std::string_view /*lockspace*/) override {
    events_->answered(query, LockErrc::kOk, {});
  }
  void pin(QueryId query, std::string_view /*lockspace*/, std::string_view /*name*/,
           const Pin& /*pin*/, bool /*fresh*/) override {
    events_->answered(query, LockErrc::kOk, {});
  }
  void unpin(QueryId query, std::string_view /*lockspace*/, std::string_view /*name*/) override {
    events_->answered(query, LockErrc::kOk, {});
  }

 private:
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  uint64_t next_token_ = 0;
};

}  // namespace lockfs
