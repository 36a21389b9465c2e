// SPDX-License-Identifier: MIT
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "core/lock_table.h"

namespace lockfs {

/// Turns the core's times into the wall's, and owners into what a person reads.
class Painter {
 public:
  static constexpr size_t kMaxListed = 100;  ///< Holders of a lock, and waiters.

  Painter(LockTable& table, Processes& processes, const TimerQueue& timers);

  /// What a look beyond this node has shown of a lock.
  struct Elsewhere {
    LockErrc result = LockErrc::kOk;
    const RemoteLock& lock;
  };
  /// The YAML document of one lock, for one that has it open: `self` is the owner that reads on its
  /// own descriptor, `error` and `lost` what it is told of itself.
  std::string lock(const Lock& lock, const Owner* self, const Elsewhere& elsewhere,
                   const std::string& error, const std::string& lost);
  /// The same facts for programs, as JSON in one line. `lock` may be null: nothing is known of it
  /// here.
  std::string as_json(const Lockspace& space, std::string_view name, const Lock* lock,
                      const Elsewhere& elsewhere);
  /// For whom one waits, as an item of the list `waits:` in YAML. `cycle`: for itself.
  std::string wait(const Owner& waiting, const std::vector<const Owner*>& blockers, bool cycle);

  const std::string& host() const { return host_; }
  /// Since 1970. The same moment gives the same time again, unless the wall clock was set.
  std::chrono::nanoseconds since_epoch(TimePoint when) const;
  /// "2026-11-26T01:15:27.123Z"
  std::string wall(TimePoint when) const;
  /// Looks up what is known of the owner's process; kept for as long as the owner holds.
  const ProcessInfo& process(const Owner& owner, const Client& client);

 private:
  nlohmann::ordered_json holder(const Owner& owner);
  nlohmann::ordered_json waiter(const Owner& owner);
  nlohmann::ordered_json blocker(const Owner& owner);
  nlohmann::ordered_json remote(const RemoteClaim& claim);
  nlohmann::ordered_json describe(const Lockspace& space, std::string_view name, const Lock* lock,
                                  const Elsewhere& elsewhere);

  // What /proc has said in this turn of the loop: a text of many locks has few processes.
  struct Seen {
    TimePoint turn;
    std::unordered_map<pid_t, ProcessInfo> described;
    std::unordered_map<pid_t, bool> gone;
  };
  Seen& seen();
  const ProcessInfo& describe(pid_t tid);
  bool is_gone(pid_t process);

  struct Known {
    pid_t pid = 0;
    ProcessInfo info;
  };
  LockTable& table_;
  Processes& processes_;
  const TimerQueue& timers_;
  std::string host_;
  mutable std::chrono::nanoseconds offset_{};  ///< Of the wall clock to the steady one.
  std::unordered_map<OwnerId, Known> known_;
  Seen seen_;
  size_t purge_at_ = 64;  ///< Those of owners that are gone are dropped at this size.
};

/// A time since 1970 as "2026-11-26T01:15:27.123Z".
std::string wall_of(std::chrono::nanoseconds since_epoch);

/// A lock's mode as users write it: "EX", "SLOT".
std::string share_name(Share share);

/// YAML of a JSON value: nested mappings and lists in block style, strings quoted as in JSON,
/// which YAML reads too. Bytes that are not UTF-8 become U+FFFD; what YAML forbids is escaped.
std::string to_yaml(const nlohmann::ordered_json& value);

}  // namespace lockfs
