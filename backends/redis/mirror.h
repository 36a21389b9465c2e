// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/redis/parts.h"
#include "core/lock_backend.h"

namespace lockfs::redis {

/// What is shown of locks and pins, as of the last message: to look up a name asks nobody.
/// Messages and lists have a version; what is older than what is known changes nothing.
class Mirror {
 public:
  /// Nothing is known any more, as messages were missed.
  void forget() { spaces_.clear(); }
  /// Whether a lockspace was loaded.
  bool knows(std::string_view lockspace) const;
  /// Messages of this lockspace count from now on, and wait for loaded(). False if they did
  /// already.
  bool expect(std::string_view lockspace) {
    return spaces_.try_emplace(std::string(lockspace)).second;
  }
  /// What is shown of some locks (locks.lua: look), of this version or a later one.
  void load(std::string_view lockspace, uint64_t version, const Parts& texts);
  /// All of it was; what came meanwhile follows. A lock that changed meanwhile may be shown as it
  /// was until the messages that are on their way have come.
  void loaded(std::string_view lockspace);
  /// VERSION PLACE PIN [NODE HELD WANTED WORDS]...
  void shown(const Parts& message);

  /// What this node has changed itself, before the message comes.
  void set_pin(std::string_view lockspace, std::string_view name, const std::optional<Pin>& pin);

  /// What is shown of one name and of all, but for what `self` shows.
  std::vector<RemoteLock> of(std::string_view lockspace, std::string_view name,
                             std::string_view self) const;
  std::vector<RemoteLock> all(std::string_view lockspace, std::string_view self) const;

 private:
  struct Shown {
    std::optional<Pin> pin;
    std::vector<std::pair<std::string, RemoteClaim>> claims;  ///< With its node.
  };
  struct Space {
    bool loaded = false;
    uint64_t version = 0;
    std::map<std::string, Shown, std::less<>> locks;
    std::vector<std::vector<std::string>> early;  ///< Messages before it was loaded.
  };
  static void set(Space& space, const Parts& parts);
  static void add(const std::string& name, const Shown& shown, std::string_view self,
                  std::vector<RemoteLock>& locks);

  std::map<std::string, Space, std::less<>> spaces_;
};

}  // namespace lockfs::redis
