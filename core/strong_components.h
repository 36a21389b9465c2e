// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

namespace lockfs {

/// A directed graph: to which nodes each node leads.
using Edges = std::vector<std::vector<size_t>>;

/// The number of each node's strongly connected component: two nodes have the same if there is a
/// way from each to the other. One pass over the edges (Tarjan), without recursion.
std::vector<size_t> strong_components(const Edges& edges);

}  // namespace lockfs
