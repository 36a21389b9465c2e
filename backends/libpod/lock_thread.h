// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <thread>

#include "backends/libpod/libpod_locks.h"
#include "core/lock_backend.h"

namespace lockfs::libpod {

/// The thread that takes and releases one of podman's locks: a robust mutex belongs to the thread
/// that locked it, and its wait cannot be ended. A wait that nobody wants any more goes on, serves
/// whoever wants the lock next, or gives it back as soon as it has it.
class LockThread {
 public:
  /// On the thread: what became of `claim`.
  using Answer = std::function<void(ClaimId claim, LockErrc result)>;

  LockThread(std::shared_ptr<Locks> locks, uint32_t id, Answer answer);
  /// Gives the lock back. A wait is left to itself.
  ~LockThread();
  LockThread(const LockThread&) = delete;
  LockThread& operator=(const LockThread&) = delete;

  /// For one claim at a time: ends by an answer, by cancel() or by release().
  void acquire(ClaimId claim, bool now);
  /// Ends a wait: true when it had no answer yet, and none comes then.
  bool cancel(ClaimId claim);
  /// Ends a wait, or gives the lock back.
  void release(ClaimId claim);

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace lockfs::libpod
