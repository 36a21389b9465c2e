// SPDX-License-Identifier: MIT
#include "backends/libpod/lock_thread.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "backends/worker_thread.h"

namespace lockfs::libpod {

struct LockThread::State {
  std::shared_ptr<Locks> locks;
  uint32_t id = 0;
  Answer answer;
  std::mutex mutex;
  std::condition_variable changed;
  // Under the mutex.
  ClaimId wanted = ClaimId::kNone;  ///< By whom; without an answer yet, unless `held`.
  bool now = false;
  bool waiting = false;  ///< The thread is in the wait that cannot be ended.
  bool held = false;     ///< And told.
  bool stopped = false;
};

LockThread::LockThread(std::shared_ptr<Locks> locks, uint32_t id, Answer answer)
    : state_(std::make_shared<State>()) {
  state_->locks = std::move(locks);
  state_->id = id;
  state_->answer = std::move(answer);
  thread_ = worker_thread([state = state_] { run(state); });
}

LockThread::~LockThread() {
  bool waiting = false;
  {
    const std::lock_guard guard(state_->mutex);
    state_->stopped = true;
    state_->wanted = ClaimId::kNone;
    waiting = state_->waiting;
  }
  state_->changed.notify_all();
  waiting ? thread_.detach() : thread_.join();
}

void LockThread::acquire(ClaimId claim, bool now) {
  {
    const std::lock_guard guard(state_->mutex);
    if (!(now && state_->waiting)) {
      state_->wanted = claim;
      state_->now = now;
      state_->changed.notify_all();
      return;
    }
  }
  state_->answer(claim, LockErrc::kWouldBlock);  // An old wait goes on: somebody else holds it.
}

bool LockThread::cancel(ClaimId claim) {
  const std::lock_guard guard(state_->mutex);
  if (state_->wanted != claim || state_->held) return false;
  state_->wanted = ClaimId::kNone;
  return true;
}

void LockThread::release(ClaimId claim) {
  const std::lock_guard guard(state_->mutex);
  if (state_->wanted != claim) return;
  state_->wanted = ClaimId::kNone;
  state_->changed.notify_all();
}

void LockThread::run(const std::shared_ptr<State>& state) {
  std::unique_lock guard(state->mutex);
  while (true) {
    state->changed.wait(guard, [&] { return state->stopped || state->wanted != ClaimId::kNone; });
    if (state->stopped) return;
    const ClaimId asked = state->wanted;
    const bool now = state->now;
    state->waiting = !now;
    guard.unlock();
    auto held = state->locks->lock(state->id, now);
    guard.lock();
    state->waiting = false;
    // Of a wait, whoever wants it by now; of a try, who asked.
    const ClaimId claim = state->wanted;
    if (claim == ClaimId::kNone || (now && claim != asked)) continue;
    if (!held) state->wanted = ClaimId::kNone;
    state->held = held.has_value();
    state->answer(claim, held ? LockErrc::kOk : held.error());
    state->changed.wait(guard, [&] { return !state->held || state->wanted != claim; });
    state->held = false;
  }
}

}  // namespace lockfs::libpod
