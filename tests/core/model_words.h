// SPDX-License-Identifier: MIT
#pragma once
#include <optional>
#include <string>

#include "core/lock_errc.h"
#include "core/mode.h"
#include "tests/core/table_model.h"

// Between the words of the core and those of the model.
namespace lockfs::model {

inline Answer answer_of(std::optional<LockErrc> result) {
  if (!result) return Answer::kWaits;
  switch (*result) {
    case LockErrc::kOk: return Answer::kGranted;
    case LockErrc::kWouldBlock: return Answer::kWouldBlock;
    case LockErrc::kTimedOut: return Answer::kTimedOut;
    case LockErrc::kInterrupted: return Answer::kInterrupted;
    case LockErrc::kDeadlock: return Answer::kDeadlock;
    case LockErrc::kInvalid: return Answer::kInvalid;
    case LockErrc::kBusy: return Answer::kBusy;
    case LockErrc::kLost: return Answer::kLost;
    case LockErrc::kNotYours: return Answer::kNotYours;
    default: return Answer::kNotFound;
  }
}

inline Wish wish_of(const Share& share) {
  if (share.is_slot()) return {0, static_cast<int>(share.slots)};
  return {static_cast<int>(share.mode), 0};
}

inline Share share_of(const Wish& wish) {
  if (wish.slots != 0) return slot_of(static_cast<uint32_t>(wish.slots));
  return {static_cast<Mode>(wish.mode), 0};
}

inline std::string words(const Wish& wish) {
  if (wish.slots != 0) return "SLOT/" + std::to_string(wish.slots);
  return std::string(mode_name(static_cast<Mode>(wish.mode)));
}

}  // namespace lockfs::model
