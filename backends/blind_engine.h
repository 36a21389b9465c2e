// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
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

/// What is common to engines that know exclusive locks alone, and show nobody: others are met by
/// asking for a lock, and pins are the mount's own. What this mount itself waits for is shown as
/// held elsewhere.
class BlindEngine : public LockBackend, protected ClaimEvents {
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
  void start(ClaimEvents& events) override { told_ = &events; }
  void describe(ClaimId /*claim*/, const Presence& /*who*/) final {}
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) final {
    std::vector<RemoteLock> locks = pins_.of(lockspace, name);
    for (const auto& [claim, place] : asked_) {
      if (place.first == lockspace && place.second == name) add(locks, place.second);
    }
    told_->answered(query, LockErrc::kOk, std::move(locks));
  }
  void list(QueryId query, std::string_view lockspace) final {
    std::vector<RemoteLock> locks = pins_.all(lockspace);
    for (const auto& [claim, place] : asked_) {
      if (place.first == lockspace) add(locks, place.second);
    }
    told_->answered(query, LockErrc::kOk, std::move(locks));
  }
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) final {
    told_->answered(query, pins_.pin(lockspace, name, pin, fresh), {});
  }
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) final {
    told_->answered(query, pins_.unpin(lockspace, name), {});
  }

 protected:
  /// A claim that holds nothing yet is asked for; until it is granted, has failed or is forgotten,
  /// it waits for somebody else.
  void asked(ClaimId claim, std::string_view lockspace, std::string_view name) {
    asked_[claim] = {std::string(lockspace), std::string(name)};
  }
  void forget(ClaimId claim) { asked_.erase(claim); }
  /// A number for an acquire, never used twice: so that a cancel that is told later ends no other.
  uint64_t next_ask() { return ++last_ask_; }

  ClaimEvents* const events_ = this;
  LockTraits traits_;

 private:
  void granted(ClaimId claim, Mode mode, TokenBlock tokens) final {
    forget(claim);
    told_->granted(claim, mode, tokens);
  }
  void failed(ClaimId claim, LockErrc why) final {
    forget(claim);
    told_->failed(claim, why);
  }
  void contended(ClaimId claim) final { told_->contended(claim); }
  void lost(ClaimId claim, std::string_view why) final { told_->lost(claim, why); }
  void reach_changed() final { told_->reach_changed(); }
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock> locks) final {
    told_->answered(query, result, std::move(locks));
  }
  static void add(std::vector<RemoteLock>& locks, const std::string& name) {
    const auto known = std::find_if(locks.begin(), locks.end(),
                                    [&](const RemoteLock& lock) { return lock.name == name; });
    RemoteLock& lock =
        known != locks.end() ? *known : locks.emplace_back(RemoteLock{name, std::nullopt, {}});
    lock.claims = {RemoteClaim{Mode::kEX, false, 0, {}, false}};
  }

  ClaimEvents* told_ = nullptr;
  OwnPins pins_;
  uint64_t last_ask_ = 0;
  std::unordered_map<ClaimId, std::pair<std::string, std::string>> asked_;
};

}  // namespace lockfs
