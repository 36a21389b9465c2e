// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "backends/module.h"
#include "backends/outlet.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// A backend that could not be made when the mount began: all that is asked of it is answered by
/// kUnreachable, at once, until it can be made. It is tried again and again, each time by a thread,
/// for what it needs may not answer; one that never comes back is never waited for. A lockspace is
/// joined at once as far as the table knows, and in truth when there is something to join; until it
/// is, all that is asked of it is refused.
class LateBackend final : public LockBackend {
 public:
  static constexpr auto kRetry = std::chrono::milliseconds(2000);
  /// Each try to join that fails is an error in the log: the time between two doubles, up to this
  /// many times kRetry.
  static constexpr int kMostRetries = 16;
  using Prepare = std::function<Prepared()>;

  /// `why` it could not be made at once. `prepare` runs on threads that may outlive this: it keeps
  /// what it uses. `retry` is the time between two tries. `loop` outlives this.
  LateBackend(EventLoop& loop, std::string url, std::string why, Prepare prepare,
              std::chrono::milliseconds retry = kRetry);
  ~LateBackend() override;
  LateBackend(const LateBackend&) = delete;
  LateBackend& operator=(const LateBackend&) = delete;

  const LockTraits& traits() const override { return made_ ? made_->traits() : unknown_; }
  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
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
  class Events;
  /// A lockspace that the table has joined, and we have not.
  struct Unjoined {
    mode_t mode = 0;
    QueryId query = QueryId::kNone;  ///< Asked, and not answered yet.
    LockErrc why = LockErrc::kOk;    ///< It could not be joined when that was last tried.
    int retries = 1;                 ///< How many of kRetry until it is tried again.
  };
  void join_now(const std::string& lockspace);
  void join_later(const std::string& lockspace, Duration retry);
  void joined(const std::string& lockspace, LockErrc result);
  void try_later();
  void try_now();
  void take(const Prepared& prepared);
  /// Before it is joined, the backend may not know yet how far the tokens of others have come.
  bool can_do(std::string_view lockspace) const { return made_ && !unjoined_.contains(lockspace); }
  void refuse(QueryId query) { events_->answered(query, LockErrc::kUnreachable, {}); }

  EventLoop& loop_;
  std::string url_;
  std::string trouble_;
  Prepare prepare_;
  std::chrono::milliseconds retry_;
  LockTraits unknown_;
  std::map<std::string, Unjoined, std::less<>> unjoined_;
  uint64_t last_query_ = 0;
  ClaimEvents* events_ = nullptr;
  std::unique_ptr<Events> passed_on_;
  std::unique_ptr<LockBackend> made_;
  std::optional<TimePoint> trying_since_;  ///< A thread is at it.
  std::shared_ptr<Outlet> outlet_;         ///< Of the threads, and for the next try.
};

}  // namespace lockfs
