// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <unordered_map>

namespace lockfs {

/// What a user other than root may use of the mount at one time.
enum class Quota : uint8_t { kOpens, kWaiters, kNames };

/// Counts what each user uses. root is neither counted nor limited.
class UserQuota {
 public:
  std::array<uint64_t, 3> limits = {65536, 16384, 65536};

  bool may_take(uid_t uid, Quota what) const {
    const auto user = used_.find(uid);
    const auto i = static_cast<size_t>(what);
    return uid == 0 || (user == used_.end() ? 0 : user->second.at(i)) < limits.at(i);
  }
  /// False, and nothing taken, when the user has all it may have.
  bool take(uid_t uid, Quota what) {
    if (!may_take(uid, what)) return false;
    add(uid, what);
    return true;
  }
  /// Counts what cannot be refused any more.
  void add(uid_t uid, Quota what) {
    if (uid != 0) ++used_[uid].at(static_cast<size_t>(what));
  }
  void give(uid_t uid, Quota what) {
    if (uid == 0) return;
    const auto user = used_.find(uid);
    if (user == used_.end()) return;
    --user->second.at(static_cast<size_t>(what));
    if (user->second == std::array<uint64_t, 3>{}) used_.erase(user);
  }

 private:
  std::unordered_map<uid_t, std::array<uint64_t, 3>> used_;
};

}  // namespace lockfs
