// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "core/timer_queue.h"

namespace lockfs {

/// Keeps users from filling the log with what they can cause as often as they like: of one user and
/// one kind of message ten are logged in a second, and then how many more there were. root is not
/// limited. On the loop thread only.
class LogLimit {
 public:
  explicit LogLimit(TimerQueue& timers) : timers_(timers) {}
  LogLimit(const LogLimit&) = delete;
  LogLimit& operator=(const LogLimit&) = delete;

  /// May one more message of this kind about this user be logged? `kind` names such messages in the
  /// line that counts the others ("locks refused"), and is a literal.
  bool admits(uid_t uid, std::string_view kind);
  /// Logs now how many were left out, and begins anew.
  void tell();

 private:
  struct Count {
    uint64_t admitted = 0;
    uint64_t left_out = 0;
  };
  TimerQueue& timers_;
  TimerId timer_ = TimerId::kNone;
  std::map<std::pair<uid_t, std::string_view>, Count> counts_;  ///< Of the present second.
};

}  // namespace lockfs
