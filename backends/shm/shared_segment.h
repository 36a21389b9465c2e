// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "backends/shm/lock_segment.h"

namespace lockfs::shm {

/// One mount's part in a segment: its mapping, its place among the nodes, and how the nodes exclude
/// each other. The kernel's byte locks on the segment's file say who is within a change and who is
/// alive, so that no death and no stray byte can make them lie, and process ids, which differ
/// between containers, are never asked.
class SharedSegment {
 public:
  /// As many locks as podman has by default, twice: 9 MiB.
  static constexpr uint32_t kDefaultLocks = 4096;

  /// How long a new mount waits for those that make changes: on a crowded host they may be off the
  /// processor in the midst of one, each time that we look.
  static constexpr auto kJoinTime = std::chrono::seconds(10);

  /// Opens the segment at `path` (in /dev/shm) and takes a place in it; makes it if it is not
  /// there, for `locks` of them. Else says in words what is wrong. With `locks`, a segment of
  /// another capacity is refused.
  static tl::expected<std::unique_ptr<SharedSegment>, std::string> open(
      const std::string& path, std::optional<uint32_t> locks,
      std::chrono::milliseconds patience = kJoinTime);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  LockSegment& locks() { return *locks_; }
  uint32_t self() const { return self_; }
  const std::string& path() const { return path_; }

  /// Begins a change, trying for a moment; false when another node is within one. Repairs what a
  /// node that died has left. Throws DamagedSegment, and is not within then.
  bool enter();
  /// The same, waiting for it: kInterrupted when a signal ended that. For another thread; then
  /// entered() on the one that goes on.
  LockErrc wait_to_enter();
  void entered();
  /// Ends a change, and wakes whom it has granted something.
  void leave();
  /// Ends a change that met damage: the next one begins with a repair, and all are woken to it.
  void abandon();
  /// Who has been granted something in this change.
  NodeSet& wake() { return wake_; }

  /// Ends what dead nodes hold, within a change.
  void bury_dead();
  /// Has any node died that was not buried? Any time.
  bool any_dead();
  /// The node that is within a change, in words, as far as can be told.
  std::string who_is_within();

  /// The bell of this node: waits until its count is not `heard`, and returns it.
  uint32_t listen(uint32_t heard);
  uint32_t bell();
  void ring(uint32_t node);

  /// Can be read when the file was closed by somebody, who may have died, or when it has changed.
  int watch_fd() const { return inotify_; }
  /// Takes what is to be read there.
  void take_events();
  /// Why the segment is not the one that a new mount would open; nullopt when all is well.
  std::optional<std::string> gone() const;

 private:
  SharedSegment(std::string path, int fd, void* base, size_t size, int watch);
  std::optional<std::string> join(std::chrono::milliseconds patience);
  bool is_alive(uint32_t node) const;
  bool is_used(uint32_t node) const;

  std::string path_;
  int fd_;
  void* base_;
  size_t size_;
  int inotify_ = -1;
  std::unique_ptr<LockSegment> locks_;
  uint32_t self_ = 0;  ///< Before it has joined, in whose name it is within.
  bool joined_ = false;
  NodeSet wake_ = 0;
};

}  // namespace lockfs::shm
