// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/lock_backend.h"
#include "core/mode.h"

namespace lockfs::etcd {

/// What one key of a lock says. Revisions are etcd's: they number all changes of all keys.
struct Entry {
  std::string owner;       ///< What stands behind the lock's name: the lease, in hexadecimal.
  int64_t create = 0;      ///< The revision that made the key: its place in the queue.
  int64_t mod = 0;         ///< The one that changed it last.
  Mode mode = Mode::kEX;   ///< Held; or asked for, as long as something stands before it.
  std::optional<Mode> to;  ///< Held, but this is wanted instead: since `mod`.
  bool converted = false;  ///< It was granted more than it was made for.
  std::string words;       ///< Who; presence_words().
  bool foreign = false;    ///< Of no mount: whatever its value is, it asks for EX.
};

/// A key's value. Who reads it with etcdctl is to understand it.
std::string value_of(const Entry& entry);
/// Sets what a value says; of a value that no mount wrote, `foreign`.
void read_value(std::string_view value, Entry& entry);

/// The keys of one lock at one revision, and what follows from them. A key is granted when nothing
/// stands before it: no key that was made before and does not go with it. So does etcd's own
/// concurrency recipe, where nothing goes with anything. Once granted it stays so, whatever comes.
///
/// To hold less, a key is overwritten. To hold more as well, but only when that takes nothing from
/// anybody (convertible); whoever is not granted then waits for it, made before or after. Who asks
/// for more stands before all that are made after it asked.
class Queue {
 public:
  using Place = std::pair<int64_t, std::string>;  ///< Of one revision there may be several keys.

  void put(Entry entry);
  void erase(std::string_view owner);
  bool empty() const { return entries_.empty(); }
  const Entry* find(std::string_view owner) const;
  const auto& entries() const { return entries_; }

  /// Must `other` wait for `one`?
  static bool stands_before(const Entry& one, const Entry& other);
  /// One that stands before a key, which need not be one of these; of those that were made before
  /// it the last. Null: it is granted.
  const Entry* blocker(const Entry& entry) const;

  enum class Turn { kNow, kLater, kDeadlock };
  struct Conversion {
    Turn turn = Turn::kLater;
    /// Keys which must still be as they are when the key is overwritten, that nobody is granted
    /// meanwhile; and no key of the lock may have been made or changed since this revision's.
    std::vector<const Entry*> guards;
  };
  /// May `entry`, which is granted, have `to` now? kDeadlock when it can never have it, for others
  /// who asked before wait for it; before it has asked itself all others have.
  Conversion convertible(const Entry& entry, Mode to) const;

  /// Is a change missing here, though all up to revision `known` should be here? `now` are all keys
  /// of the lock, or the first, as of a later revision than anything here.
  bool lacks(const Queue& now, int64_t known) const;

  /// Does anybody wait for `entry` to give up what it holds?
  bool wanted(const Entry& entry) const;

  /// All but `self`, as others see them. Of a foreign key, which starts with `key`, the key itself
  /// is all that is known.
  std::vector<RemoteClaim> claims(std::string_view self, std::string_view key) const;

 private:
  static Place place_of(const Entry& entry) { return {entry.create, entry.owner}; }
  const Entry* first_blocker(const Entry& entry) const;

  std::map<Place, Entry> entries_;
  std::unordered_map<std::string, int64_t> by_owner_;  ///< `create`.
  std::set<Place> converted_;                          ///< Of those that are.
};

}  // namespace lockfs::etcd
