// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/shm/layout.h"
#include "core/lock_backend.h"

namespace lockfs::shm {

/// Nodes as a set of bits: those that are to be woken, for they were granted something or hold what
/// others wait for.
using NodeSet = uint64_t;

/// What one node has of one lock; it fits in one Word.
struct Claim {
  Mode held = Mode::kNL;
  Mode wanted = Mode::kNL;  ///< NL: waits for nothing.
  uint32_t ticket = 0;      ///< Its turn among those that wait.
  bool contended = false;   ///< Another node waits for what this one holds.
  /// Nobody holds it: the node may have it again by retake(), without a change, as long as no other
  /// has taken it away. To all others it is not there.
  bool kept = false;

  bool any() const { return held != Mode::kNL || wanted != Mode::kNL; }
  bool waits() const { return wanted != Mode::kNL; }
};

/// The locks in a segment's memory, and all that is done to them. It knows neither processes nor
/// how they exclude each other: each member function is called by one at a time, unless it says
/// otherwise. Whoever changes something calls begin() before and end() after.
///
/// Every function may throw DamagedSegment. Nobody is granted a lock whose claims cannot be read.
class LockSegment {
 public:
  enum class Turn { kGranted, kWaits, kRefused, kDeadlock, kFull };
  /// A lock's place; valid while the node has a claim on it.
  using Place = uint32_t;

  /// Makes an empty segment of `size_for(locks)` bytes.
  static void format(void* base, uint32_t locks);
  /// What is wrong with a segment's head, in words; nullopt when it is one of ours.
  static std::optional<std::string> check_head(const Header& header, uint64_t size);

  /// `base`, page-aligned, has a head that is well.
  explicit LockSegment(void* base);
  uint32_t lock_count() const { return lock_count_; }
  Node& node(uint32_t i) { return nodes_[i]; }

  /// False when somebody died in the midst of a change: repair() then, before anything else.
  bool begin(uint32_t node);
  void end();
  /// Who began a change and did not end it, if that can be told.
  std::optional<uint32_t> within() const;
  /// Makes what follows from the truth anew, and gives all who can go their turn.
  void repair(NodeSet& wake);

  /// Asks for a mode, or converts. kWaits leaves the node in the queue, `now` forbids that. `place`
  /// becomes the lock's as soon as it is known; it is the node's to use with kGranted, kWaits, and
  /// where it held something before.
  Turn acquire(uint32_t node, std::string_view lockspace, std::string_view name, Mode mode,
               bool now, std::optional<Place>& place, NodeSet& wake);
  /// Of a lock that is held, wanted or pinned.
  std::optional<Place> place_of(std::string_view lockspace, std::string_view name) const;
  /// Ends a wait; false when it has been granted already. What was held is held.
  bool cancel(uint32_t node, Place place, NodeSet& wake);
  /// Ends whatever the node has of the lock.
  void release(uint32_t node, Place place, NodeSet& wake);
  /// Ends what the node keeps there, if it still does.
  void release_kept(uint32_t node, Place place);
  /// Ends all that a node has, of all locks.
  void release_all(uint32_t node, NodeSet& wake);
  /// Any time, of its own node: its state changes under its hands only by a grant.
  Claim claim(uint32_t node, Place place) const;
  /// Gives up what the node holds, and is wanted by nobody, but keeps it at hand; false if it is
  /// wanted: release it. Any time, by its own node, as is retake().
  bool keep(uint32_t node, Place place);
  /// Holds in `mode`, which the kept one covers; false when another node has taken it away.
  bool retake(uint32_t node, Place place, Mode kept, Mode mode);
  /// The tokens of the grant, of a node that holds PW or EX; any time.
  TokenBlock tokens(Place place) const;

  void describe(uint32_t node, Place place, const Presence& who);
  std::optional<RemoteLock> look(uint32_t node, std::string_view lockspace, std::string_view name);
  /// The same at any time, if nobody is within a change meanwhile; else nullopt: look within one.
  std::optional<std::optional<RemoteLock>> look_outside(uint32_t node, std::string_view lockspace,
                                                        std::string_view name);
  std::vector<RemoteLock> look_all(uint32_t node, std::string_view lockspace);
  LockErrc pin(std::string_view lockspace, std::string_view name, const Pin& pin, bool fresh);
  LockErrc unpin(std::string_view lockspace, std::string_view name);

  /// What is wrong with the invariants, for tests: incompatible holders, waiters that could go,
  /// records that are lost, chains that lead nowhere.
  std::optional<std::string> check() const;

 private:
  Lock& lock(Place place) const;
  std::optional<Place> find(std::string_view key, uint32_t hash) const;
  std::optional<Place> find_or_make(std::string_view key, uint32_t hash);
  std::optional<Place> place_for(std::string_view lockspace, std::string_view name);
  void unlink(Place place);
  void collect(Place place);
  void put_free(Place place);
  std::string_view key_of(const Lock& lock) const;
  void grant(Lock& lock, uint32_t node, Mode mode);
  void advance(Lock& lock, NodeSet& wake);
  bool mark_contended(Lock& lock, NodeSet& wake);
  static void take_away(Lock& lock, uint32_t node, Mode mode);
  bool take_all_away();
  std::optional<uint32_t> next_to_go(const Lock& lock) const;
  void take_tokens(Lock& lock);
  Text* text_of(Lock& lock, uint32_t node) const;
  RemoteLock show(const Lock& lock, uint32_t node) const;
  std::optional<Pin> pin_of(const Lock& lock) const;
  bool in_use(const Lock& lock) const;

  Header* header_;
  Node* nodes_;
  Word* chains_;
  Lock* locks_;
  uint32_t lock_count_;
};

/// The next tokens of a holder come after so many: hand-overs inside a mount ask for no more.
inline constexpr uint64_t kTokens = 16;

}  // namespace lockfs::shm
