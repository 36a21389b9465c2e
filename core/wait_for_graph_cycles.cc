// SPDX-License-Identifier: MIT
// All waits at once, for those who look.
#include <algorithm>
#include <map>
#include <tuple>
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
  std::map<std::tuple<const Lock*, Mode, uint32_t>, size_t> wanted_;
  std::unordered_map<const Owner*, size_t> passed_;  ///< A waiter, and those beside it.
};

void WaitForGraph::Cycles::add(Owner& waiter) {
  const size_t wait = node(waits_, &waiter);
  if (waiter.wait->process != 0) link(node(processes_, waiter.wait->process), wait);
  if (waiter.wait->converting) {  // It does not wait for what it holds itself.
    link_holders(waiter, wait);
  } else {
    const Share want = waiter.wait->request.want;
    const auto nodes = edges_.size();
    const size_t holders = node(wanted_, std::make_tuple(waiter.lock, want.mode, want.slots));
    link(wait, holders);
    if (edges_.size() != nodes) link_holders(waiter, holders);
  }
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

std::vector<WaitForGraph::Row> WaitForGraph::rows() const {
  std::vector<Row> rows;
  Cycles cycles(*this);
  for (const auto& [process, last] : waiting_) {
    for (const Owner* owner = last; owner != nullptr; owner = owner->wait->same_prev) {
      Row row{owner, {}, cycles.contains(*owner)};
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
