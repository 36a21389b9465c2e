// SPDX-License-Identifier: MIT
#include "fs/node_table.h"

namespace lockfs {

NodeKind NodeTable::kind(NodeId node) {
  if ((node & kLockBit) != 0) return NodeKind::kLock;
  if (node == kRoot) return NodeKind::kRoot;
  if (node == kInfoDir) return NodeKind::kInfoDir;
  if (node >= kFirstInfoFile && node < kEndInfoFiles) return NodeKind::kInfoFile;
  if (node >> 32 == 1) return NodeKind::kLockspace;
  if (node >> 32 == 2) return NodeKind::kControl;
  return NodeKind::kGone;
}

NodeId NodeTable::add_lock(uint32_t space, std::string_view name) {
  return locks_.emplace(LockNode{space, std::string(name), {}}).first | kLockBit;
}

void NodeTable::forget(NodeId node) {
  if (kind(node) == NodeKind::kLock) locks_.erase(node & ~kLockBit);
}

}  // namespace lockfs
