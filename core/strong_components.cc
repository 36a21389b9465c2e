// SPDX-License-Identifier: MIT
#include "core/strong_components.h"

#include <algorithm>
#include <limits>

namespace lockfs {
namespace {

constexpr size_t kNone = std::numeric_limits<size_t>::max();

class Tarjan {
 public:
  explicit Tarjan(const Edges& edges)
      : component(edges.size(), kNone),
        edges_(edges),
        order_(edges.size(), kNone),
        lowest_(edges.size(), kNone) {}

  void from(size_t root) {
    if (order_[root] == kNone) enter(root);
    while (!way_.empty()) {
      const size_t node = way_.back().node;
      if (way_.back().next == edges_[node].size()) {
        leave(node);
        continue;
      }
      const size_t to = edges_[node][way_.back().next++];
      if (order_[to] == kNone) {
        enter(to);
      } else if (component[to] == kNone) {
        lowest_[node] = std::min(lowest_[node], order_[to]);
      }
    }
  }

  std::vector<size_t> component;

 private:
  struct Visit {
    size_t node;
    size_t next;  ///< Of its edges.
  };

  void enter(size_t node) {
    order_[node] = lowest_[node] = entered_++;
    open_.push_back(node);
    way_.push_back({node, 0});
  }

  void leave(size_t node) {
    way_.pop_back();
    if (!way_.empty()) {
      size_t& lowest = lowest_[way_.back().node];
      lowest = std::min(lowest, lowest_[node]);
    }
    if (lowest_[node] != order_[node]) return;
    while (component[node] == kNone) {
      component[open_.back()] = components_;
      open_.pop_back();
    }
    ++components_;
  }

  const Edges& edges_;
  std::vector<size_t> order_;   ///< In which the nodes were entered.
  std::vector<size_t> lowest_;  ///< The first of an open component that a node leads to.
  std::vector<size_t> open_;    ///< Nodes whose component is not complete.
  std::vector<Visit> way_;      ///< From the root to where we are.
  size_t entered_ = 0;
  size_t components_ = 0;
};

}  // namespace

std::vector<size_t> strong_components(const Edges& edges) {
  Tarjan tarjan(edges);
  for (size_t node = 0; node < edges.size(); ++node) tarjan.from(node);
  return std::move(tarjan.component);
}

}  // namespace lockfs
