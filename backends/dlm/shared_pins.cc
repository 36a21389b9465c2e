// SPDX-License-Identifier: MIT
#include "backends/dlm/shared_pins.h"

#include <algorithm>
#include <utility>

namespace lockfs::dlm {
namespace {

// Pins in one message, of which corosync takes up to a megabyte: a name has 64 bytes, or three
// times that when quoted.
constexpr size_t kPinsInMessage = 1000;

bool in(const std::vector<Member>& list, const Member& who) {
  return std::find(list.begin(), list.end(), who) != list.end();
}

}  // namespace

std::optional<Pin> SharedPins::of(const std::string& name) const {
  const auto found = pins_.find(name);
  return found == pins_.end() ? std::nullopt : std::optional(found->second);
}

void SharedPins::apply(const Message& message) {
  if (message.kind == Message::Kind::kUnpin) {
    pins_.erase(message.name);
  } else if (message.fresh) {
    pins_.try_emplace(message.name, message.pin);
  } else {
    pins_[message.name] = message.pin;
  }
}

LockErrc SharedPins::change(const Message& message) {
  if (!known_) {
    heard_.push_back(message);
    return LockErrc::kUnreachable;
  }
  const bool has = pins_.contains(message.name);
  apply(message);
  if (message.kind == Message::Kind::kUnpin) return has ? LockErrc::kOk : LockErrc::kNotFound;
  return message.fresh && has ? LockErrc::kExists : LockErrc::kOk;
}

// Who speaks put the pins together after it saw us come. What it did not see of the changes since,
// we heard; to make all of them again ends at the same, for the last change of a name decides.
void SharedPins::take(Member self, Member from, const Message& message) {
  const Member to{message.to_node, message.to_pid};
  if (to != self) {
    if (message.last) std::erase(newcomers_, to);
    return;
  }
  const bool other_half = known_ && in(newcomers_, from);  // Of a cluster that was split.
  for (const Told& told : message.locks) {
    if (!told.pin) continue;
    if (!known_) incoming_.insert_or_assign(told.name, *told.pin);
    if (other_half) pins_.try_emplace(told.name, *told.pin);
  }
  if (known_ || !message.last) return;
  pins_ = std::exchange(incoming_, {});
  for (const Message& change : std::exchange(heard_, {})) apply(change);
  known_ = true;
  elders_.clear();
}

// Of those who have the pins the first speaks, and if it dies before it did, the next. Where all
// have died who were here before us, what we heard is all there is.
std::vector<Member> SharedPins::members(Member self, std::vector<Member> all,
                                        const std::vector<Member>& joined) {
  std::sort(all.begin(), all.end());
  if (in(joined, self) || all.empty()) {  // Cut off, or here again.
    known_ = false;
    incoming_.clear();
    heard_.clear();
    newcomers_.clear();
    elders_ = all;
    std::erase(elders_, self);
    if (all.empty()) return {};
  }
  std::erase_if(elders_, [&](const Member& m) { return !in(all, m); });
  std::erase_if(newcomers_, [&](const Member& m) { return !in(all, m); });
  for (const Member& m : joined) {
    if (m != self && !in(elders_, m)) newcomers_.push_back(m);
  }
  if (!known_ && elders_.empty()) {
    for (const Message& change : std::exchange(heard_, {})) apply(change);
    known_ = true;
  }
  const auto speaker =
      std::find_if(all.begin(), all.end(), [&](const Member& m) { return !in(newcomers_, m); });
  if (!known_ || speaker == all.end() || *speaker != self) return {};
  return newcomers_;
}

std::vector<Message> SharedPins::say_all(Member to) const {
  std::vector<Message> out(1);
  for (const auto& [name, pin] : pins_) {
    if (out.back().locks.size() == kPinsInMessage) out.emplace_back();
    Told told;
    told.name = name;
    told.pin = pin;
    out.back().locks.push_back(std::move(told));
  }
  for (Message& message : out) {
    message.kind = Message::Kind::kPins;
    message.to_node = to.node;
    message.to_pid = to.pid;
  }
  out.back().last = true;
  return out;
}

}  // namespace lockfs::dlm
