// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/dlm/kernel_locks.h"

namespace lockfs::dlm {

/// Fencing tokens of a lock's exclusive grants, over all nodes. A lock's name falls on one of
/// kCounters counters of its lockspace, each a DLM resource whose value block has the last token
/// given. Who holds the lock, and then takes the counter, gets a number greater than any that was
/// given for that lock before, for each of them was given under the counter too.
///
/// A counter that is new, or invalid because a node died with it, starts anew from the sequence
/// number of the cluster's membership (in the upper bits), which grew with that death, and the
/// milliseconds since 2020 (in the lower 40), which grow when all mounts have left and come again.
class Tokens {
 public:
  static constexpr size_t kCounters = 1024;

  /// How it speaks to KernelLocks, which lives on another thread.
  struct Verbs {
    std::function<LockNo()> new_number;
    std::function<void(LockNo, const std::string& space, const std::string& resource, Mode mode,
                       const std::optional<LockValue>& write)>
        acquire;
    /// Answered by started().
    std::function<void(LockNo)> ask_ring_sequence;
  };
  explicit Tokens(Verbs verbs) : verbs_(std::move(verbs)) {}

  /// The next token; called at once if the counter is here. 0: out of reach.
  using Given = std::function<void(uint64_t token)>;
  void next(const std::string& space, std::string_view name, Given given);
  /// This node gives the lock up, because another one wants it: that one will want the counter.
  void hand_over(const std::string& space, std::string_view name);
  /// The lockspace is left, or lost: who waits gets 0.
  void forget(const std::string& space);

  // Events of KernelLocks; false if the lock is no counter.
  bool granted(LockNo no, Mode mode, const LockValue& value);
  bool refused(LockNo no);
  bool blocking(LockNo no);
  void started(LockNo no, uint64_t ring_sequence);  ///< 0: corosync does not answer.

  /// The least token at that membership and time (milliseconds since 1970).
  static uint64_t base(uint64_t ring_sequence, uint64_t milliseconds);

 private:
  struct Counter {
    LockNo no = LockNo::kNone;
    std::string space;
    std::string resource;
    bool here = false;    ///< Held in EX.
    bool sure = false;    ///< `last` is no less than any token that was given.
    bool asking = false;  ///< A conversion, or the ring's sequence, is under way.
    bool wanted = false;  ///< By another node, since it is here.
    uint64_t last = 0;
    std::vector<Given> waiting;
  };
  Counter& counter(const std::string& space, std::string_view name);
  void serve(Counter& counter);
  void give_up(Counter& counter);
  void fail(Counter& counter);

  Verbs verbs_;
  std::unordered_map<std::string, Counter> counters_;  ///< By space NUL resource.
  std::unordered_map<LockNo, Counter*> by_number_;
};

}  // namespace lockfs::dlm
