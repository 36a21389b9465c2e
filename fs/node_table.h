// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/slot_map.h"

namespace lockfs {

/// What the kernel calls a node id.
using NodeId = uint64_t;
enum class HandleId : uint64_t { kNone = 0 };

enum class NodeKind : uint8_t { kGone, kRoot, kInfoDir, kInfoFile, kLockspace, kControl, kLock };

/// A lock, as one lookup of its name found it.
struct LockNode {
  uint32_t space = 0;
  std::string name;
  std::vector<HandleId> handles;  ///< Opened with this node: one, unless through /proc/PID/fd.
};

/// Node ids. Those of directories and control files are fixed by what they are; a lock gets a new
/// one with each lookup, since the kernel locks the inode of a node while a write to it waits
/// (facts on FUSE, Reading and writing). No id is ever used for another thing.
class NodeTable {
 public:
  static constexpr NodeId kRoot = 1;
  static constexpr NodeId kInfoDir = 2;
  static constexpr NodeId kFirstInfoFile = 3;
  static constexpr NodeId kEndInfoFiles = 16;

  static NodeId lockspace(uint32_t id) { return 1ULL << 32 | id; }
  static NodeId control(uint32_t id) { return 2ULL << 32 | id; }
  static NodeKind kind(NodeId node);
  /// Of a lockspace or its control file.
  static uint32_t space(NodeId node) { return static_cast<uint32_t>(node); }

  NodeId add_lock(uint32_t space, std::string_view name);
  /// Null when the node is none of a lock.
  LockNode* lock(NodeId node) {
    return kind(node) == NodeKind::kLock ? locks_.find(node & ~kLockBit) : nullptr;
  }
  /// The kernel has forgotten it.
  void forget(NodeId node);
  size_t locks() const { return locks_.size(); }

 private:
  static constexpr NodeId kLockBit = 1ULL << 63;
  SlotMap<uint64_t, LockNode> locks_;
};

}  // namespace lockfs
