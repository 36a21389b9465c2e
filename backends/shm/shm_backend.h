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
  /// How long a change waits for the segment before what it asks for is answered by kUnreachable.
  static constexpr auto kPatience = std::chrono::seconds(1);

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
    shm::LockSegment::Place place = 0;
    Mode held = Mode::kNL;
    bool placed = false;    ///< It has a place.
    bool waiting = false;   ///< In the segment's queue.
    bool released = false;  ///< By its verb, which waits in the backlog.
  };
  using Then = std::function<void()>;
  /// A change that waits for the segment, and what is to be said when nobody can wait any longer.
  struct Change {
    std::function<Then()> make;
    Then give_up;  ///< Empty: it must be made, however late.
  };

  template <typename Make, typename Tell>
  void change(Make make, Tell tell, bool must = false);
  bool guarded(const std::function<void()>& work);
  template <typename Make>
  auto attempt(Make& make) -> std::optional<decltype(make())>;
  void make_backlog();
  void give_up_backlog();
  void acquired(ClaimId id, Mode mode, std::optional<shm::LockSegment::Turn> turn);
  void failed(ClaimId id, LockErrc why);
  void rung();
  void look_for_deaths(size_t step);
  void lose_all(const std::string& why);
  void listen();
  void post(void (ShmBackend::*work)());

  EventLoop& loop_;
  std::unique_ptr<shm::SharedSegment> segment_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  std::unordered_map<ClaimId, Claim> claims_;
  std::deque<Change> backlog_;
  bool broken_ = false;  ///< The segment is damaged or gone: nothing is granted any more.
  TimerId patience_ = TimerId::kNone;
  TimerId deaths_ = TimerId::kNone;
  std::shared_ptr<ShmBackend*> self_;  ///< Of what the thread posts; null when this is gone.
  std::atomic<bool> wants_segment_ = false;
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::thread listener_;
};

}  // namespace lockfs
