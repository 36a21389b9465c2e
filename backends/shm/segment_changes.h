// SPDX-License-Identifier: MIT
#pragma once
#include <spdlog/spdlog.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "backends/shm/shared_segment.h"
#include "core/event_loop.h"

namespace lockfs::shm {

/// How a mount makes its changes of a segment: at once on the loop, unless another mount is within
/// a change; then they wait in a backlog, in their order, and a thread that does nothing else waits
/// for the segment. The same thread listens to this mount's bell. All but that on the loop.
class SegmentChanges {
 public:
  /// `rung`: the bell was rung. `damaged`: the segment's bytes do not allow what was to be done;
  /// once, soon, not within a call. `loop` outlives this.
  SegmentChanges(EventLoop& loop, std::unique_ptr<SharedSegment> segment,
                 std::function<void()> rung, std::function<void()> damaged);
  ~SegmentChanges();
  SegmentChanges(const SegmentChanges&) = delete;
  SegmentChanges& operator=(const SegmentChanges&) = delete;

  SharedSegment& segment() { return *segment_; }
  void start();
  /// Runs `work` soon on the loop, unless this is gone by then.
  void post(std::function<void()> work);

  /// For a change that must be made, however late.
  static constexpr std::optional<Duration> kMust = std::nullopt;
  /// Makes a change, and calls `tell` with what `make` returned; with nullopt when nobody can say,
  /// or it was not made because `patience` was over or the segment is damaged.
  template <typename Make, typename Tell>
  void change(Make make, Tell tell, std::optional<Duration> patience);
  /// Is a change under way that is not made yet? Then nothing may pass it.
  bool waits() const { return asked_; }
  /// Reads the segment; false when its bytes do not allow it.
  bool read(const std::function<void()>& work);
  /// Nothing is granted any more.
  bool is_broken() const { return broken_; }
  /// The segment is not what others use any more.
  void give_up() { broken_ = true; }

 private:
  using Then = std::function<void()>;
  struct Change {
    std::function<Then()> make;
    Then give_up;
    std::optional<TimePoint> until;  ///< None: it must be made.
  };
  template <typename Make>
  auto attempt(Make& make) -> std::optional<decltype(make())>;
  void make_backlog();
  void give_up_backlog();
  void schedule_giving_up();
  void listen(uint32_t heard);

  EventLoop& loop_;
  std::unique_ptr<SharedSegment> segment_;
  std::function<void()> rung_;
  std::function<void()> damaged_;
  std::deque<Change> backlog_;
  bool asked_ = false;  ///< The listener waits for the segment, for the backlog.
  bool broken_ = false;
  TimerId patience_ = TimerId::kNone;
  std::shared_ptr<bool> gone_;  ///< Of what is posted.
  std::atomic<bool> wants_segment_ = false;
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::thread listener_;
};

// What follows from the segment's truth is mended; the truth cannot be.
template <typename Make>
auto SegmentChanges::attempt(Make& make) -> std::optional<decltype(make())> {
  try {
    return make();
  } catch (const DamagedSegment& damage) {
    if (!broken_) spdlog::warn("shm: {}: {}; mending it", segment_->path(), damage.what());
  }
  std::optional<decltype(make())> result;
  read([&] {
    segment_->locks().repair(segment_->wake());
    result = make();
  });
  return result;
}

template <typename Make, typename Tell>
void SegmentChanges::change(Make make, Tell tell, std::optional<Duration> patience) {
  using Result = decltype(make());
  const bool must = !patience;
  if (!asked_) {
    bool within = false;
    if ((broken_ && !must) || !read([&] { within = segment_->enter(); })) {
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

}  // namespace lockfs::shm
