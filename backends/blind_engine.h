// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_backend.h"

namespace lockfs {

/// The pins of a mount whose engine keeps none, nor shows what others hold.
class OwnPins {
 public:
  /// What inspect and list answer.
  std::vector<RemoteLock> of(std::string_view lockspace, std::string_view name) const {
    std::vector<RemoteLock> out;
    const auto pin = pins_.find({std::string(lockspace), std::string(name)});
    if (pin != pins_.end()) out.push_back({std::string(name), pin->second, {}});
    return out;
  }
  std::vector<RemoteLock> all(std::string_view lockspace) const {
    std::vector<RemoteLock> out;
    for (auto pin = pins_.lower_bound({std::string(lockspace), ""});
         pin != pins_.end() && pin->first.first == lockspace; ++pin) {
      out.push_back({pin->first.second, pin->second, {}});
    }
    return out;
  }
  LockErrc pin(std::string_view lockspace, std::string_view name, const Pin& pin, bool fresh) {
    const auto [place, is_new] =
        pins_.try_emplace({std::string(lockspace), std::string(name)}, pin);
    if (!is_new && fresh) return LockErrc::kExists;
    place->second = pin;
    return LockErrc::kOk;
  }
  LockErrc unpin(std::string_view lockspace, std::string_view name) {
    const size_t had = pins_.erase({std::string(lockspace), std::string(name)});
    return had != 0 ? LockErrc::kOk : LockErrc::kNotFound;
  }

 private:
  std::map<std::pair<std::string, std::string>, Pin> pins_;
};

/// What is common to engines that know exclusive locks alone, do not queue fairly and show nobody:
/// others are met by asking for a lock, and pins are the mount's own.
class BlindEngine : public LockBackend {
 public:
  explicit BlindEngine(const char* name) {
    traits_.name = name;
    traits_.shared_modes = false;
    traits_.fifo = false;
    traits_.slots = false;
    traits_.sees_other_nodes = false;
    traits_.other_nodes = true;
    traits_.value_block = false;
  }
  const LockTraits& traits() const final { return traits_; }
  void describe(ClaimId /*claim*/, const Presence& /*who*/) final {}
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) final {
    events_->answered(query, LockErrc::kOk, pins_.of(lockspace, name));
  }
  void list(QueryId query, std::string_view lockspace) final {
    events_->answered(query, LockErrc::kOk, pins_.all(lockspace));
  }
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) final {
    events_->answered(query, pins_.pin(lockspace, name, pin, fresh), {});
  }
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) final {
    events_->answered(query, pins_.unpin(lockspace, name), {});
  }

 protected:
  ClaimEvents* events_ = nullptr;

 private:
  LockTraits traits_;
  OwnPins pins_;
};

}  // namespace lockfs
