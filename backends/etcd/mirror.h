// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/etcd/queue.h"
#include "core/lock_backend.h"
#include "etcd.pb.h"

namespace lockfs::etcd {

/// Where everything lies. A lock's key is the one that etcd's own concurrency recipe, `etcdctl lock
/// SPACE/NAME`, makes: PREFIX SPACE/NAME/LEASE, the lease in hexadecimal. Other keys are apart.
class Keys {
 public:
  explicit Keys(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string space(std::string_view space) const { return prefix_ + std::string(space) + "/"; }
  /// What all keys of a lock start with.
  std::string lock(std::string_view space, std::string_view name) const {
    return this->space(space) + std::string(name) + "/";
  }
  std::string pins(std::string_view space) const {
    return prefix_ + ".lockfs/pins/" + std::string(space) + "/";
  }
  /// Whoever converts changes this key as well: its revision is the last token of a conversion.
  std::string converted(std::string_view space) const {
    return prefix_ + ".lockfs/converted/" + std::string(space);
  }
  /// The end of the range of all keys that start with `key`, which ends with a '/'.
  static std::string end_of(std::string key) {
    ++key.back();
    return key;
  }

 private:
  std::string prefix_;
};

/// Of a key of a lockspace, without what all of these start with; no name: it is none of a lock.
struct KeyOfLock {
  std::string_view name;
  std::string_view owner;
};
KeyOfLock split_key(std::string_view rest);

/// All keys of the lockspaces that this mount has joined, as of the last message. To look up a name
/// asks nobody, and who waits sees here whose turn it is. One watch a lockspace, one for its pins.
class Mirror {
 public:
  explicit Mirror(const Keys& keys) : keys_(keys) {}

  /// Nothing is known any more, as messages were missed.
  void forget() {
    spaces_.clear();
    by_watch_.clear();
  }
  void forget(const std::string& space);
  bool knows(std::string_view space) const;
  /// It is about to be loaded. False if it was.
  bool expect(const std::string& space);
  /// Its keys and pins, of that revision.
  void load(const std::string& space, const wire::RangeResponse& locks,
            const wire::RangeResponse& pins, int64_t revision);
  /// The numbers of its watches.
  int64_t watch_of(std::string_view space) const;

  /// What one event has changed.
  struct Change {
    std::string_view space;
    std::string_view name;
    Entry entry;
    bool gone = false;
  };
  /// Takes over what a watch tells; `changed` is called after each change of a lock.
  void apply(const wire::WatchResponse& response,
             const std::function<void(const Change&)>& changed);

  /// Null: the lock has no key.
  const Queue* queue(std::string_view space, std::string_view name) const;
  /// One key of it; null: there is none.
  const Entry* entry(std::string_view space, std::string_view name, std::string_view owner) const;
  /// All of a lockspace that was changed up to it is here.
  int64_t revision(std::string_view space) const;
  /// Do keys of a lock, as of `revision`, prove that a change was never told? What may still be on
  /// its way proves nothing.
  bool lacks(std::string_view space, std::string_view name, const Queue& now,
             int64_t revision) const;
  /// What a read has shown: all keys of [from, to) at a revision, and which changed each last.
  /// Without what all keys of the lockspace start with; no `to`: to the end.
  struct Reading {
    std::string from;
    std::string to;
    int64_t revision = 0;
    std::map<std::string, int64_t, std::less<>> keys;
  };
  /// Is compared with this lockspace when that is of the same revision: when something later comes,
  /// or when differs() says that nothing does. False: it is of later already.
  bool compare(const std::string& space, Reading reading);
  /// Did that show anything else than what was here?
  bool differs(const std::string& space);
  /// The names of locks that have a key of this owner.
  std::vector<std::string> of_owner(std::string_view space, std::string_view owner) const;

  /// What this node has changed itself, before the message comes.
  void set_pin(std::string_view space, std::string_view name, const std::optional<Pin>& pin);

  /// What is to be shown of one name and of all, but for what `self` has.
  std::vector<RemoteLock> of(std::string_view space, std::string_view name,
                             std::string_view self) const;
  std::vector<RemoteLock> all(std::string_view space, std::string_view self) const;

 private:
  struct Lock {
    Queue queue;
    std::optional<Pin> pin;
  };
  struct Space {
    bool loaded = false;
    int64_t number = 0;
    int64_t revision = 0;
    std::map<std::string, Lock, std::less<>> locks;
    std::optional<Reading> reading;
    bool wrong = false;  ///< It differed from one.
  };
  static void compare_now(Space& space);
  const Space* find(std::string_view space) const;
  void pinned(Space& space, const wire::Event& event, size_t skip);
  void collect(Space& space, std::string_view name);
  RemoteLock shown(std::string_view space, const std::string& name, const Lock& lock,
                   std::string_view self) const;

  const Keys& keys_;
  std::map<std::string, Space, std::less<>> spaces_;
  std::map<int64_t, std::string> by_watch_;
  int64_t last_watch_ = 0;
};

/// A key as an Entry.
Entry entry_of(const wire::KeyValue& key, std::string_view owner);

}  // namespace lockfs::etcd
