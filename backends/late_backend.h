// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <tl/expected.hpp>

#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// A backend that could not be made when the mount began: all that is asked of it is answered by
/// kUnreachable, at once, until it can be made. It is tried again and again.
class LateBackend final : public LockBackend {
 public:
  using Made = tl::expected<std::unique_ptr<LockBackend>, std::string>;
  static constexpr auto kRetry = std::chrono::seconds(2);

  /// `loop` outlives this.
  LateBackend(EventLoop& loop, std::string url, std::function<Made()> make);
  ~LateBackend() override;
  LateBackend(const LateBackend&) = delete;
  LateBackend& operator=(const LateBackend&) = delete;

  const LockTraits& traits() const override { return made_ ? made_->traits() : unknown_; }
  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override { events_ = &events; }
  void join(QueryId query, std::string_view lockspace, mode_t mode) override;
  void leave(QueryId query, std::string_view lockspace, bool force) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void acquire_slots(ClaimId claim, std::string_view lockspace, std::string_view name,
                     SlotClaim slots, bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void set_value(ClaimId claim, const LockValue& value) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  void try_again();
  void refuse(QueryId query) { events_->answered(query, LockErrc::kUnreachable, {}); }

  EventLoop& loop_;
  std::string url_;
  std::string trouble_ = "not tried yet";
  std::function<Made()> make_;
  LockTraits unknown_;
  ClaimEvents* events_ = nullptr;
  std::unique_ptr<LockBackend> made_;
  TimerId retry_ = TimerId::kNone;
};

}  // namespace lockfs
