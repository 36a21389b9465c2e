// SPDX-License-Identifier: MIT
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// What several nodes join so that they share their locks: a directory, a segment, a server.
class World {
 public:
  virtual ~World() = default;
  /// The URL that a node mounts.
  virtual std::string source() const = 0;
  /// False where all nodes are one mount (memory:).
  virtual bool separate_nodes() const { return true; }
  /// Whether it promises that nodes are granted a lock in the order in which they asked.
  virtual bool fifo() const = 0;
  /// Deletes the file behind a lock of the default lockspace, as if by mistake; false where there
  /// is none.
  virtual bool delete_lock(const std::string& /*name*/) { return false; }
  /// Renames that file; and all that nodes share, with an empty one in its place where a node does
  /// not make it.
  virtual bool move_lock(const std::string& /*name*/) { return false; }
  virtual bool move_store() { return false; }
  /// Whether there is a file behind each lock.
  virtual bool has_files() const { return false; }
  /// Whether who waits is told when its turn has come; else it asks again and again.
  virtual bool asks_once() const { return true; }
  /// Whether nodes share CR..PW; else each claim is EX towards the others.
  virtual bool shares_modes() const { return true; }
  /// Whether a node sees what others hold, wait for and have pinned; else it meets them.
  virtual bool sees_others() const { return true; }
  /// Whether nodes share counting semaphores.
  virtual bool has_slots() const { return false; }
  /// Whether a lock keeps the size that its slots had first, though nobody uses it any more.
  virtual bool keeps_size() const { return false; }
  /// Whether a node sees what another holds as soon as it is granted; else a moment later.
  virtual bool sees_at_once() const { return true; }
  /// How long others may have to wait for what a killed daemon held, in seconds.
  virtual double takeover() const { return 1; }
  virtual size_t max_name_bytes() const { return 255; }
  virtual size_t max_lockspace_bytes() const { return 255; }
};

/// A world by its name, for the tests' parameter.
std::unique_ptr<World> make_world(const std::string& name);
/// All that this build knows.
std::vector<std::string> world_names();

/// Two nodes of a world, and what the tests do with them.
class ContractTest : public testing::TestWithParam<std::string> {
 protected:
  ContractTest();
  /// The mount of node 0 or 1, or of one that was added.
  Mount& node(size_t i) { return *nodes_.at(world_->separate_nodes() ? i : 0); }
  std::string lock(size_t i, const std::string& name) { return node(i).lock(name); }
  /// A descriptor of the lock on that node, which holds nothing yet; closed at the end.
  int open_lock(size_t i, const std::string& name);
  /// Another node beside the two: its number.
  size_t add_node();
  /// Ends a node's daemon with SIGKILL, and starts another in its place.
  void kill_node(size_t i);
  void restart_node(size_t i);
  /// The lock as a node shows it, and the same by a key; "" when it is free there.
  std::string picture(size_t i, const std::string& name) { return slurp(lock(i, name)); }
  std::string shown(size_t i, const std::string& name, const std::string& key);
  /// Whether a node sees of another what `condition` tells: at once, or a moment later where the
  /// world says so.
  bool sees(const std::function<bool()>& condition) const {
    return world_->sees_at_once() ? condition() : eventually(condition, 2);
  }
  /// What a node lists in a lockspace.
  std::set<std::string> listed(size_t i, const std::string& lockspace = "default");
  static bool is_stopped(pid_t process);
  /// Waits until a node shows so many waiters: each of its own, and one for each other node that
  /// waits for its turn.
  bool eventually_waiting(size_t i, const std::string& name, size_t count);
  World& world() { return *world_; }
  ~ContractTest() override;

 private:
  std::unique_ptr<World> world_;
  std::vector<std::unique_ptr<Mount>> nodes_;
  std::vector<int> descriptors_;
};

}  // namespace lockfs::test
