// SPDX-License-Identifier: MIT
#include "fs/log_limit.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace lockfs {
namespace {

constexpr auto kWindow = std::chrono::seconds(1);
constexpr uint64_t kAdmitted = 10;
// Users and kinds that are told apart; the rest are counted together, as one user's.
constexpr size_t kApart = 256;
constexpr auto kOthers = static_cast<uid_t>(-1);  // No user's number: chown(2) means nobody by it.

}  // namespace

bool LogLimit::admits(uid_t uid, std::string_view kind) {
  if (uid == 0) return true;
  const bool apart = counts_.size() < kApart || counts_.contains({uid, kind});
  Count& count = counts_[{apart ? uid : kOthers, kind}];
  if (timer_ == TimerId::kNone) {
    timer_ = timers_.schedule(timers_.now() + kWindow, [this] { tell(); });
  }
  const bool admitted = count.admitted < kAdmitted;
  ++(admitted ? count.admitted : count.left_out);
  return admitted;
}

void LogLimit::tell() {
  timers_.cancel(timer_);
  timer_ = TimerId::kNone;
  for (const auto& [key, count] : counts_) {
    if (count.left_out == 0) continue;
    const auto& [uid, kind] = key;
    spdlog::warn("{} more like this were not logged: {}, {}", count.left_out, kind,
                 uid == kOthers ? "of several users" : fmt::format("uid {}", uid));
  }
  counts_.clear();
}

}  // namespace lockfs
