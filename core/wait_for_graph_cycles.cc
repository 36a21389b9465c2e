// SPDX-License-Identifier: MIT
// All waits at once, for those who look.
#include <algorithm>
#include <map>
#include <utility>

#include "core/strong_components.h"
#include "core/wait_for_graph.h"

namespace lockfs {

// Which waits are part of a cycle, in one pass. The nodes are waits and processes, and, so that the
// edges are as few as the owners, what many waits have in common: the holders that one share does
// not go with, and the waiters beside each other in a queue.
class WaitForGraph::Cycles {
 public:
  explicit Cycles(const WaitForGraph& graph) {
    for (const auto& [process, last] : graph.waiting_) {
      for (Owner* at = last; at != nullptr; at = at->wait->same_prev) add(*at);
    }
    components_ = strong_components(edges_);
  }

  bool contains(const Owner& waiter) {
    const pid_t process = waiter.wait->process;
    return process != 0 &&
           components_[node(waits_, &waiter)] == components_[node(processes_, process)];
  }

 private:
  // The node of `what`, made if it is new.
  template <typename Nodes, typename What>
  size_t node(Nodes& nodes, const What& what) {
    const auto [at, is_new] = nodes.try_emplace(what, edges_.size());
    if (is_new) edges_.emplace_back();
    return at->second;
  }

  void link(size_t from, size_t to) { edges_[from].push_back(to); }
  void add(Owner& waiter);
  void link_holders(Owner& waiter, size_t from);
  size_t passed(Owner& nearest);

  Edges edges_;
  std::vector<size_t> components_;
  std::unordered_map<const Owner*, size_t> waits_;
  std::unordered_map<pid_t, size_t> processes_;
  std::map<Against, size_t> against_;
  std::unordered_map<const Owner*, size_t> passed_;  ///< A waiter, and those beside it.
};

void WaitForGraph::Cycles::add(Owner& waiter) {
  const size_t wait = node(waits_, &waiter);
  if (waiter.wait->process != 0) link(node(processes_, waiter.wait->process), wait);
  const auto nodes = edges_.size();
  const size_t holders = node(against_, against(waiter));
  link(wait, holders);
  if (edges_.size() != nodes) link_holders(waiter, holders);
  for (Owner* ahead : waiter.lock->nearest_ahead(waiter)) {
    if (ahead != nullptr) link(wait, passed(*ahead));
  }
}

void WaitForGraph::Cycles::link_holders(Owner& waiter, size_t from) {
  waiter.lock->any_holder_against(waiter, [&](Owner& holder) {
    if (const pid_t process = releaser(holder)) link(from, node(processes_, process));
    return false;
  });
}

// The node of a waiter and all beside it.
size_t WaitForGraph::Cycles::passed(Owner& nearest) {
  bool is_new = !passed_.contains(&nearest);
  const size_t first = node(passed_, &nearest);
  for (Owner* at = &nearest; is_new;) {
    const size_t from = node(passed_, at);
    link(from, node(waits_, at));
    at = at->lock->beside(*at);
    if (at == nullptr) break;
    is_new = !passed_.contains(at);
    link(from, node(passed_, at));
  }
  return first;
}

// Each once, though a conversion is one that holds and one that is ahead.
std::vector<const Owner*> WaitForGraph::first_holders(const Owner& waiter) {
  std::vector<const Owner*> out;
  waiter.lock->any_holder_against(waiter, [&](Owner& holder) {
    if (std::find(out.begin(), out.end(), &holder) == out.end()) out.push_back(&holder);
    return out.size() >= kMaxBlockers;
  });
  return out;
}

// Of those who wait for each other only the nearest, which leads to the rest.
void WaitForGraph::add_those_ahead(const Owner& waiter, std::vector<const Owner*>& out) {
  for (const Owner* ahead : waiter.lock->nearest_ahead(waiter)) {
    for (; ahead != nullptr && out.size() < kMaxBlockers; ahead = waiter.lock->beside(*ahead)) {
      out.push_back(ahead);
    }
  }
}

std::vector<WaitForGraph::Row> WaitForGraph::rows() const {
  std::vector<Row> rows;
  Cycles cycles(*this);
  std::map<Against, std::vector<const Owner*>> holders;
  for (const auto& [process, last] : waiting_) {
    for (const Owner* owner = last; owner != nullptr; owner = owner->wait->same_prev) {
      const auto [known, is_new] = holders.try_emplace(against(*owner));
      if (is_new) known->second = first_holders(*owner);
      Row row{owner, known->second, cycles.contains(*owner)};
      add_those_ahead(*owner, row.blockers);
      rows.push_back(std::move(row));
    }
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.waiter->wait->sequence < b.waiter->wait->sequence;
  });
  return rows;
}

}  // namespace lockfs
