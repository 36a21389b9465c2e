// SPDX-License-Identifier: MIT
#include "backends/shm/segment_changes.h"

#include <chrono>
#include <csignal>
#include <vector>

#include "backends/worker_thread.h"

namespace lockfs::shm {
namespace {

// When the kernel has no memory for a lock, the listener tries again.
constexpr auto kNoMemory = std::chrono::milliseconds(100);

// Interrupts the listener's wait for the segment.
int interrupt_signal() { return SIGRTMIN; }

}  // namespace

SegmentChanges::SegmentChanges(EventLoop& loop, std::unique_ptr<SharedSegment> segment,
                               std::function<void()> rung, std::function<void()> damaged)
    : loop_(loop),
      segment_(std::move(segment)),
      rung_(std::move(rung)),
      damaged_(std::move(damaged)),
      gone_(std::make_shared<bool>(false)) {}

SegmentChanges::~SegmentChanges() {
  *gone_ = true;
  if (!listener_.joinable()) return;
  loop_.timers.cancel(patience_);
  stopped_ = true;
  segment_->ring(segment_->self());
  while (!ended_) {  // A signal that comes before its wait is lost.
    pthread_kill(listener_.native_handle(), interrupt_signal());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  listener_.join();
}

void SegmentChanges::start() {
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  sigaction(interrupt_signal(), &nothing, nullptr);
  // The count before anything can be asked, so that no ring is missed.
  listener_ =
      worker_thread([this, heard = segment_->bell()] { listen(heard); }, interrupt_signal());
}

void SegmentChanges::post(std::function<void()> work) {
  loop_.post([gone = gone_, work = std::move(work)] {
    if (!*gone) work();
  });
}

void SegmentChanges::listen(uint32_t heard) {
  while (!stopped_) {
    if (wants_segment_) {
      const LockErrc result = segment_->wait_to_enter();
      if (result == LockErrc::kUnreachable) std::this_thread::sleep_for(kNoMemory);
      if (result != LockErrc::kOk) continue;
      wants_segment_ = false;
      post([this] { make_backlog(); });
    }
    heard = segment_->listen(heard);
    post([this] { rung_(); });
  }
  ended_ = true;
}

bool SegmentChanges::read(const std::function<void()>& work) {
  try {
    work();
    return true;
  } catch (const DamagedSegment& damage) {
    if (std::exchange(broken_, true)) return false;
    spdlog::error(
        "shm: {} is damaged ({}): no lock of it is granted any more; unmount all that use it, "
        "remove it, mount again",
        segment_->path(), damage.what());
    post([this] { damaged_(); });
    return false;
  }
}

// The listener is within the segment, for us.
void SegmentChanges::make_backlog() {
  asked_ = false;
  loop_.timers.cancel(std::exchange(patience_, TimerId::kNone));
  const bool within = read([this] { segment_->entered(); });
  std::vector<Then> told;
  for (Change& change : std::exchange(backlog_, {})) {
    told.push_back(within ? change.make() : std::move(change.give_up));
  }
  if (within) broken_ ? segment_->abandon() : segment_->leave();
  for (const Then& tell : told) tell();
}

void SegmentChanges::schedule_giving_up() {
  if (patience_ != TimerId::kNone) return;
  std::optional<TimePoint> first;
  for (const Change& change : backlog_) {
    if (change.until && (!first || *change.until < *first)) first = change.until;
  }
  if (first) patience_ = loop_.timers.schedule(*first, [this] { give_up_backlog(); });
}

// A mount was stopped within a change. What cannot wait is answered; the rest stays.
void SegmentChanges::give_up_backlog() {
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

}  // namespace lockfs::shm
