// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <tl/expected.hpp>
#include <unordered_map>

#include "backends/shm/shared_segment.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `shm:NAME`: a segment in POSIX shared memory that all mounts of a host share, also those in
/// containers with the same /dev/shm. A verb is a change of the segment, made at once on the loop
/// unless another mount is within a change; then it waits its turn in a backlog, and a thread that
/// does nothing else waits for the segment. The same thread listens to this mount's bell, which is
/// rung by whoever grants it something.
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
  struct Claim {
    std::optional<shm::LockSegment::Place> place;  ///< Of what it has in the segment.
    Mode told = Mode::kNL;                         ///< What the table knows it to hold.
    bool waiting = false;                          ///< In the segment's queue.
    bool released = false;                         ///< By its verb, which waits in the backlog.
  };
  using Then = std::function<void()>;
  /// A change that waits for the segment, and what is to be said when nobody can wait any longer.
  struct Change {
    std::function<Then()> make;
    Then give_up;
    std::optional<TimePoint> until;  ///< None: it must be made, however late.
  };
  static constexpr std::optional<Duration> kMust = std::nullopt;

  template <typename Make, typename Tell>
  void change(Make make, Tell tell, std::optional<Duration> patience);
  bool guarded(const std::function<void()>& work);
  template <typename Make>
  auto attempt(Make& make) -> std::optional<decltype(make())>;
  void make_backlog();
  void give_up_backlog();
  void schedule_giving_up();
  void acquired(ClaimId id, Mode mode, std::optional<shm::LockSegment::Turn> turn);
  void granted(ClaimId id, Mode mode);
  void undecided(ClaimId id);
  void failed(ClaimId id, LockErrc why);
  void drop(ClaimId id);
  void interrupted(ClaimId id);
  void rung();
  void fail_waiting();
  void recheck();
  void look_for_deaths(size_t step);
  void bury_dead();
  void lose_all(const std::string& why);
  void listen(uint32_t heard);
  void post(std::function<void(ShmBackend&)> work);

  EventLoop& loop_;
  std::unique_ptr<shm::SharedSegment> segment_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  std::unordered_map<ClaimId, Claim> claims_;
  std::deque<Change> backlog_;
  bool asked_ = false;   ///< The listener waits for the segment, for the backlog.
  bool broken_ = false;  ///< The segment is damaged or gone: nothing is granted any more.
  TimerId patience_ = TimerId::kNone;
  TimerId recheck_ = TimerId::kNone;
  TimerId deaths_ = TimerId::kNone;
  std::shared_ptr<ShmBackend*> self_;  ///< Of what is posted; null when this is gone.
  std::atomic<bool> wants_segment_ = false;
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::thread listener_;
};

}  // namespace lockfs
