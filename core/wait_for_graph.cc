// SPDX-License-Identifier: MIT
#include "core/wait_for_graph.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace lockfs {

void WaitForGraph::dropped(pid_t pid) {
  const auto it = holds_.find(pid);
  if (it != holds_.end() && --it->second == 0) holds_.erase(it);
}

void WaitForGraph::waits(Owner& owner) {
  Owner*& last = waiting_[owner.wait->process];
  owner.wait->same_prev = last;
  if (last != nullptr) last->wait->same_next = &owner;
  last = &owner;
}

void WaitForGraph::waits_no_more(Owner& owner) {
  Wait& wait = *owner.wait;
  if (wait.same_prev != nullptr) wait.same_prev->wait->same_next = wait.same_next;
  if (wait.same_next != nullptr) {
    wait.same_next->wait->same_prev = wait.same_prev;
  } else if (wait.same_prev != nullptr) {
    waiting_[wait.process] = wait.same_prev;
  } else {
    waiting_.erase(wait.process);
  }
  wait.same_prev = wait.same_next = nullptr;
}

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
      const auto waits_too = waiting_.find(process);
      if (waits_too == waiting_.end() || !stuck(process, blocker, 1, certain)) return false;
      for (Owner* at = waits_too->second; at != nullptr; at = at->wait->same_prev) {
        if (seen.insert(at).second) open.push_back(at);
      }
      return false;
    });
  }
  return found;
}

std::vector<WaitForGraph::Row> WaitForGraph::rows() const {
  std::vector<Row> rows;
  for (const auto& [process, last] : waiting_) {
    for (Owner* owner = last; owner != nullptr; owner = owner->wait->same_prev) {
      Row row{owner, {}, process != 0 && holds_.contains(process) && search(*owner, false)};
      owner->lock->any_blocker(*owner, [&](Owner& blocker) {
        row.blockers.push_back(&blocker);
        return row.blockers.size() >= kMaxBlockers;
      });
      rows.push_back(std::move(row));
    }
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.waiter->wait->sequence < b.waiter->wait->sequence;
  });
  return rows;
}

}  // namespace lockfs
