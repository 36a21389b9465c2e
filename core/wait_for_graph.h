// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <tuple>
#include <unordered_map>
#include <vector>

#include "core/lock.h"
#include "core/processes.h"

namespace lockfs {

/// Who waits for whom, over all locks. The edges are not stored: they follow from the queues. What
/// is stored is where each process holds and waits, so that a search can go on from lock to lock.
///
/// A cycle is a deadlock only if no process in it can do anything but wait. That is so when each
/// has a single thread, which waits; with several, another thread may still release.
class WaitForGraph {
 public:
  explicit WaitForGraph(Processes& processes) : processes_(processes) {}

  void held(pid_t pid) { ++holds_[pid]; }  ///< Some owner of this thread came to hold above NL.
  void dropped(pid_t pid);
  void waits(Owner& owner);  ///< owner.wait is set and queued.
  void waits_no_more(Owner& owner);

  /// Would `owner`, which has just been queued, wait for itself for certain? False as well when
  /// to find that out takes more than these:
  bool deadlocked(Owner& owner) const;
  static constexpr size_t kMostVisits = 10000;  ///< Holders and waiters gone through, 2 ms.
  static constexpr size_t kMostAsked = 32;      ///< Of processes, about 0.1 ms each.

  struct Row {
    const Owner* waiter = nullptr;
    std::vector<const Owner*> blockers;  ///< At most kMaxBlockers.
    bool cycle = false;  ///< It waits for itself if no thread of the processes can release.
  };
  static constexpr size_t kMaxBlockers = 16;
  std::vector<Row> rows() const;  ///< Those who wait longest first.

 private:
  class Search;
  class Cycles;
  /// Whose process alone may let go of what `holder` holds; 0: nobody's that is known, or time's.
  static pid_t releaser(const Owner& holder);
  /// Waits with the same of this are held up by the same holders, of which they are none: most of a
  /// lock have one of few.
  using Against = std::tuple<const Lock*, Mode, uint32_t, bool, const Owner*>;
  static Against against(const Owner& waiter);
  static std::vector<const Owner*> first_holders(const Owner& waiter);
  static void add_those_ahead(const Owner& waiter, std::vector<const Owner*>& out);

  Processes& processes_;
  std::unordered_map<pid_t, uint32_t> holds_;
  std::unordered_map<pid_t, Owner*> waiting_;  ///< The last of each process that began to wait.
};

}  // namespace lockfs
