// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/shm/kept_claims.h"
#include "backends/shm/segment_changes.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `shm:NAME`: a segment in POSIX shared memory that all mounts of a host share, also those in
/// containers with the same /dev/shm. A verb is a change of the segment (SegmentChanges), except
/// that what was released and is wanted by nobody is kept, and taken again without one.
class ShmBackend final : public LockBackend {
 public:
  /// How long an acquire waits for the segment before it is answered by kUnreachable; a question
  /// not as long as the table waits for its answer, so that nothing is done that was given up.
  static constexpr auto kPatience = std::chrono::seconds(1);
  static constexpr auto kQuestionPatience = std::chrono::milliseconds(400);
  /// Nothing is missed unless a mount is stopped between a grant and its bell: so often, while
  /// something waits, we look all the same.
  static constexpr auto kRecheck = std::chrono::milliseconds(500);

  /// `loop` outlives this.
  ShmBackend(EventLoop& loop, std::unique_ptr<shm::SharedSegment> segment);
  ~ShmBackend() override;
  ShmBackend(const ShmBackend&) = delete;
  ShmBackend& operator=(const ShmBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
  std::vector<std::pair<std::string, std::string>> status() const override {
    return {{"state", trouble_.empty() ? "up" : trouble_}};
  }
  std::string trouble() const override { return trouble_; }
  void start(ClaimEvents& events) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  using Place = shm::LockSegment::Place;
  struct Claim {
    std::string key;             ///< lockspace NUL name
    std::optional<Place> place;  ///< Of what it has in the segment.
    TokenBlock tokens;           ///< That it has not given to the table.
    Mode told = Mode::kNL;       ///< What the table knows it to hold.
    bool waiting = false;        ///< In the segment's queue.
    bool released = false;       ///< By its verb, which waits in the backlog.
  };
  static constexpr auto kMust = shm::SegmentChanges::kMust;

  shm::LockSegment& locks() { return changes_.segment().locks(); }
  uint32_t self() { return changes_.segment().self(); }
  void acquired(ClaimId id, Mode mode, std::optional<shm::LockSegment::Turn> turn);
  void granted(ClaimId id, Mode mode);
  void undecided(ClaimId id);
  void failed(ClaimId id, LockErrc why);
  void drop(ClaimId id);
  void interrupted(ClaimId id);
  bool take_kept(ClaimId id, Mode mode);
  bool keep(const Claim& claim);
  void rung();
  void fail_waiting();
  void recheck();
  void look_for_deaths(size_t step);
  void bury_dead();
  void lose_all(const std::string& why);

  EventLoop& loop_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  std::unordered_map<ClaimId, Claim> claims_;
  shm::KeptClaims kept_;
  TimerId recheck_ = TimerId::kNone;
  TimerId deaths_ = TimerId::kNone;
  std::string trouble_;  ///< Why all is lost; empty: it is not.
  shm::SegmentChanges changes_;
};

}  // namespace lockfs
