// SPDX-License-Identifier: MIT
#include "core/wait_for_graph.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>
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

pid_t WaitForGraph::releaser(const Owner& holder) {
  if (holder.closed) return 0;  // It lingers.
  if (holder.wait) return holder.wait->process;
  return holder.process != 0 ? holder.process : holder.client.pid;
}

WaitForGraph::Against WaitForGraph::against(const Owner& waiter) {
  const Share want = waiter.wait->request.want;
  const bool converting = waiter.wait->converting;
  // It does not wait for what it holds itself. Of those who would, two that hold and want the same
  // block each other, so there is one.
  const bool alone = converting && (want.is_slot() || !compatible(want, waiter.held));
  return {waiter.lock, want.mode, want.slots, converting, alone ? &waiter : nullptr};
}

// A search for a way from a wait back to its own process, along which nobody can do anything but
// wait. Ways are found first, the shortest before others, and then their processes are asked, for
// that is dear.
class WaitForGraph::Search {
 public:
  Search(const WaitForGraph& graph, Owner& start) : graph_(graph), start_(start) {}

  bool finds_deadlock() {
    while (find_way()) {
      if (is_certain()) return true;
    }
    return false;
  }

 private:
  /// How the search came to a wait, or back: from another one, which waits for what `holder`
  /// holds; null: which is behind it in the queue.
  struct Step {
    Owner* from = nullptr;
    Owner* holder = nullptr;
  };

  bool find_way();
  void reach(Owner& waiter, Step step) {
    if (reached_.try_emplace(&waiter, step).second) open_.push_back(&waiter);
  }
  bool come_to_holders(Owner& waiter);
  bool come_to_holder(Owner& waiter, Owner& holder);
  void come_to_those_ahead(Owner& waiter);
  bool is_certain();
  bool is_stuck(const Owner& holder);
  bool spend(size_t visits) {
    visits_ -= std::min(visits_, visits);
    return visits_ != 0;
  }
  using Held = std::tuple<pid_t, const Lock*, size_t>;  ///< With so many descriptions.
  Held held_by(pid_t process, const Owner& holder) const;

  const WaitForGraph& graph_;
  Owner& start_;
  size_t visits_ = kMostVisits;
  size_t asks_ = kMostAsked;
  std::map<Held, bool> stuck_;  ///< What is known of processes.
  // Of one find_way().
  std::unordered_map<const Owner*, Step> reached_;
  std::deque<Owner*> open_;                  ///< Of the reached, those to go on from.
  std::set<Against> against_;                ///< Whose holders were visited.
  std::unordered_set<const Owner*> passed_;  ///< They, and those beside them.
  std::unordered_set<pid_t> processes_;      ///< Whose waits were reached.
  Step last_;
};

bool WaitForGraph::Search::find_way() {
  reached_.clear();
  open_.clear();
  against_.clear();
  passed_.clear();
  processes_.clear();
  reach(start_, {});
  while (!open_.empty() && visits_ != 0) {
    Owner& waiter = *open_.front();
    open_.pop_front();
    if (come_to_holders(waiter)) return true;
    come_to_those_ahead(waiter);
  }
  return false;
}

bool WaitForGraph::Search::come_to_holders(Owner& waiter) {
  if (!against_.insert(against(waiter)).second || !spend(waiter.lock->holders())) return false;
  return waiter.lock->any_holder_against(
      waiter, [&](Owner& holder) { return come_to_holder(waiter, holder); });
}

bool WaitForGraph::Search::come_to_holder(Owner& waiter, Owner& holder) {
  const pid_t process = releaser(holder);
  if (process == 0) return false;
  const auto known = stuck_.find(held_by(process, holder));
  if (known != stuck_.end() && !known->second) return false;
  if (process == start_.wait->process) {
    last_ = {&waiter, &holder};
    return true;
  }
  const auto waits = graph_.waiting_.find(process);
  if (waits == graph_.waiting_.end() || !processes_.insert(process).second) return false;
  for (Owner* at = waits->second; at != nullptr && spend(1); at = at->wait->same_prev) {
    reach(*at, {&waiter, &holder});
  }
  return false;
}

void WaitForGraph::Search::come_to_those_ahead(Owner& waiter) {
  for (Owner* ahead : waiter.lock->nearest_ahead(waiter)) {
    while (ahead != nullptr && passed_.insert(ahead).second && spend(1)) {
      reach(*ahead, {&waiter, nullptr});
      ahead = waiter.lock->beside(*ahead);
    }
  }
}

// Is each process on the way that was found stuck?
bool WaitForGraph::Search::is_certain() {
  for (Step step = last_; step.from != nullptr; step = reached_.at(step.from)) {
    if (step.holder != nullptr && !is_stuck(*step.holder)) return false;
  }
  return true;
}

// One descriptor is the lock's; that of start, when it waits for another one's, is a second.
WaitForGraph::Search::Held WaitForGraph::Search::held_by(pid_t process, const Owner& holder) const {
  const bool beside_start = process == start_.wait->process && holder.lock == start_.lock;
  return {process, holder.lock, beside_start && &holder != &start_ ? 2 : 1};
}

// Can the process that holds this do nothing about it?
bool WaitForGraph::Search::is_stuck(const Owner& holder) {
  const pid_t process = releaser(holder);
  const Held held = held_by(process, holder);
  const auto [known, is_new] = stuck_.try_emplace(held, false);
  if (!is_new || asks_ == 0) return known->second;
  --asks_;
  const size_t descriptions = std::get<size_t>(held);
  known->second =
      graph_.processes_.sole_releaser(process, holder.since, holder.lock->inode(), descriptions);
  return known->second;
}

bool WaitForGraph::deadlocked(Owner& owner) const {
  const pid_t process = owner.wait->process;
  // Nobody waits for a process that holds nothing. Single-threaded, so its thread is it.
  if (process == 0 || owner.wait->client.pid != process || !holds_.contains(process)) return false;
  return Search(*this, owner).finds_deadlock();
}

}  // namespace lockfs
