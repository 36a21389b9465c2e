// SPDX-License-Identifier: MIT
#include "core/wait_for_graph.h"

#include <unordered_set>

namespace lockfs {

void WaitForGraph::dropped(pid_t pid) {
  const auto it = holds_.find(pid);
  if (it != holds_.end() && --it->second == 0) holds_.erase(it);
}

void WaitForGraph::waits(Owner& owner) { waiting_.emplace(owner.wait->process, &owner); }

void WaitForGraph::waits_no_more(Owner& owner) { waiting_.erase({owner.wait->process, &owner}); }

bool WaitForGraph::deadlocked(Owner& owner) const {
  const pid_t process = owner.wait->process;
  // Nobody waits for a process that holds nothing. Single-threaded, so its thread is it.
  if (process == 0 || owner.wait->client.pid != process || !holds_.contains(process)) return false;
  return search(owner, true);
}

// Can `process` do nothing about what `holder`, one of its owners, holds or waits for?
bool WaitForGraph::stuck(pid_t process, const Owner& holder, size_t descriptions,
                         bool certain) const {
  if (!certain) return true;
  return processes_.sole_releaser(process, holder.since, holder.lock->inode(), descriptions);
}

bool WaitForGraph::search(Owner& start, bool certain) const {
  const pid_t origin = start.wait->process;
  std::vector<Owner*> open = {&start};
  std::unordered_set<const Owner*> seen = {&start};
  bool found = false;
  while (!open.empty() && !found) {
    Owner& waiter = *open.back();
    open.pop_back();
    found = waiter.lock->any_blocker(waiter, [&](Owner& blocker) {
      if (blocker.closed) return false;  // It lingers: time alone ends it.
      if (!blocker.holding) {            // It is ahead in the queue: what keeps it keeps us.
        if (seen.insert(&blocker).second) open.push_back(&blocker);
        return false;
      }
      const pid_t process = blocker.wait           ? blocker.wait->process
                            : blocker.process != 0 ? blocker.process
                                                   : blocker.client.pid;
      if (process == 0) return false;
      if (process == origin) {
        const size_t descriptions = blocker.lock == start.lock ? 2 : 1;
        return stuck(process, blocker, descriptions, certain);
      }
      auto at = waiting_.lower_bound({process, nullptr});
      const auto waits_too = [&] { return at != waiting_.end() && at->first == process; };
      if (!waits_too() || !stuck(process, blocker, 1, certain)) return false;
      for (; waits_too(); ++at) {
        if (seen.insert(at->second).second) open.push_back(at->second);
      }
      return false;
    });
  }
  return found;
}

std::vector<WaitForGraph::Row> WaitForGraph::rows() const {
  std::vector<Row> rows;
  for (const auto& [process, owner] : waiting_) {
    Row row{owner, {}, process != 0 && holds_.contains(process) && search(*owner, false)};
    owner->lock->any_blocker(*owner, [&](Owner& blocker) {
      row.blockers.push_back(&blocker);
      return row.blockers.size() >= kMaxBlockers;
    });
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace lockfs
