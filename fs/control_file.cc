// SPDX-License-Identifier: MIT
// The commands of a lockspace's .ctl, a function each.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "fs/lock_fs.h"
#include "fs/lock_name.h"

namespace lockfs {
namespace {

std::string said(const std::string& words) { return words + "\n"; }

tl::unexpected<Refusal> refuse(LockErrc why, std::string words) {
  return tl::make_unexpected(Refusal{why, std::move(words)});
}

tl::unexpected<Refusal> not_owner(const Lockspace& space) {
  return refuse(LockErrc::kNotYours,
                fmt::format("only root and the lockspace's owner (uid {}) may do that", space.uid));
}

}  // namespace

const std::vector<LockFs::ControlVerb>& LockFs::control_verbs() {
  static const std::vector<ControlVerb> verbs = {
      {"allocate", "allocate [ID]", 0, 1, &LockFs::control_allocate},
      {"free", "free ID", 1, 1, &LockFs::control_free},
      {"free-all", "free-all", 0, 0, &LockFs::control_free_all},
      {"pin", "pin NAME", 1, 1, &LockFs::control_pin},
      {"unpin", "unpin NAME", 1, 1, &LockFs::control_unpin},
      {"break", "break NAME [why]", 1, kMaxCommand, &LockFs::control_break},
      {"capacity", "capacity [N]", 0, 1, &LockFs::control_capacity},
      {"stats", "stats", 0, 0, &LockFs::control_stats},
  };
  return verbs;
}

void LockFs::control_write(fuse_req_t req, Handle& handle, std::string_view data) {
  Lockspace* space = space_of(handle);
  if (NodeTable::kind(handle.node) != NodeKind::kControl || space == nullptr) {
    return void(fuse_reply_err(req, EPERM));
  }
  // A privileged program may be led to write to what an ordinary user opened, as in
  // `sudo echo > .ctl`: then it is the user who asks.
  const Client writer = client_of(req);
  const Client& opener = handle.opener;
  const Client client = owns(opener, *space) ? writer : Client{writer.pid, opener.uid, opener.gid};
  const Answer answer = control(*space, client, data);
  if (answer) {
    handle.answer = *answer;
    return void(fuse_reply_write(req, data.size()));
  }
  if (answer.error().why == LockErrc::kNotYours) {
    spdlog::warn("'{}' in lockspace {} refused to uid {} pid {}: {}", data, space->name, client.uid,
                 client.pid, answer.error().words);
  }
  handle.answer = said("error: " + answer.error().words);
  fuse_reply_err(req, to_errno(answer.error().why));
}

LockFs::Answer LockFs::control(Lockspace& space, const Client& client, std::string_view text) {
  if (text.size() > kMaxCommand) {
    return refuse(LockErrc::kInvalid,
                  "a command has at most 4096 bytes, this one " + std::to_string(text.size()));
  }
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const auto words = split_words(text);
  if (!words) return refuse(LockErrc::kInvalid, words.error());
  if (words->empty()) return refuse(LockErrc::kInvalid, "an empty command");
  const std::vector<std::string> arguments(words->begin() + 1, words->end());
  std::string usages;
  for (const ControlVerb& verb : control_verbs()) {
    usages += (usages.empty() ? "" : " | ") + std::string(verb.usage);
    if (words->front() != verb.name) continue;
    if (arguments.size() < verb.least || arguments.size() > verb.most) {
      return refuse(LockErrc::kInvalid, "it is: " + std::string(verb.usage));
    }
    Answer answer = (this->*verb.run)(space, client, arguments);
    if (!answer) answer.error().words.insert(0, std::string(verb.name) + ": ");
    return answer;
  }
  return refuse(LockErrc::kInvalid,
                "unknown command '" + words->front() + "'; commands: " + usages);
}

LockFs::Answer LockFs::control_allocate(Lockspace& space, const Client& client,
                                        const Arguments& arguments) {
  std::string id;
  if (!arguments.empty()) {
    const auto number = parse_number(arguments[0], 0, space.capacity - 1);
    if (!number) return refuse(LockErrc::kInvalid, number.error());
    id = std::to_string(*number);
    const Lock* lock = table_.find(space, id);
    if (lock != nullptr && lock->pin) return refuse(LockErrc::kExists, id + " is taken");
  } else {
    uint64_t number = space.lowest_free;
    for (; number < space.capacity; ++number) {
      const Lock* lock = table_.find(space, std::to_string(number));
      if (lock == nullptr || !lock->visible()) break;
      // Only a pin is sure to report its end, in unpin().
      if (lock->pin && number == space.lowest_free) ++space.lowest_free;
    }
    if (number >= space.capacity) {
      return refuse(LockErrc::kExhausted,
                    fmt::format("all {} numbers of this lockspace are taken", space.capacity));
    }
    id = std::to_string(number);
  }
  const LockErrc result = table_.pin(space, id, client, true);
  if (result != LockErrc::kOk) return refuse_pin(result, client);
  return said(id);
}

LockFs::Answer LockFs::control_free(Lockspace& space, const Client& client,
                                    const Arguments& arguments) {
  const auto number = parse_number(arguments[0], 0, UINT64_MAX);
  if (!number) return refuse(LockErrc::kInvalid, number.error());
  Lock* lock = table_.find(space, std::to_string(*number));
  if (lock == nullptr || !lock->pin || !lock->pin->allocated) {
    return refuse(LockErrc::kNotFound, arguments[0] + " is not allocated");
  }
  if (client.uid != lock->pin->uid && !owns(client, space)) {
    return refuse(LockErrc::kNotYours,
                  fmt::format("{} was allocated by uid {}", arguments[0], lock->pin->uid));
  }
  table_.unpin(*lock);
  return "";
}

LockFs::Answer LockFs::control_free_all(Lockspace& space, const Client& client,
                                        const Arguments& /*arguments*/) {
  if (!owns(client, space)) return not_owner(space);
  std::vector<Lock*> allocated;
  for (auto& [name, lock] : space.locks) {
    if (lock.pin && lock.pin->allocated) allocated.push_back(&lock);
  }
  for (Lock* lock : allocated) table_.unpin(*lock);
  return said(std::to_string(allocated.size()));
}

LockFs::Answer LockFs::control_pin(Lockspace& space, const Client& client,
                                   const Arguments& arguments) {
  const std::string& file = arguments[0];
  const std::string name = lock_name(file);
  const bool taken = file == ".ctl" || file == "." || file == "..";
  if (name.empty() || name.size() > space.backend->traits().max_name_bytes || taken ||
      file.find('/') != std::string::npos) {
    return refuse(LockErrc::kInvalid, "'" + file + "' cannot be the name of a lock here");
  }
  const LockErrc result = table_.pin(space, name, client, false);
  if (result != LockErrc::kOk) return refuse_pin(result, client);
  return "";
}

LockFs::Answer LockFs::refuse_pin(LockErrc why, const Client& client) {
  spdlog::warn("pin refused to uid {} pid {}: max_names_per_user={} is reached", client.uid,
               client.pid, options_.max_names_per_user);
  return refuse(why, "your limit of names is reached");
}

LockFs::Answer LockFs::control_unpin(Lockspace& space, const Client& client,
                                     const Arguments& arguments) {
  Lock* lock = table_.find(space, lock_name(arguments[0]));
  if (lock == nullptr || !lock->pin) {
    return refuse(LockErrc::kNotFound, "'" + arguments[0] + "' is not pinned");
  }
  if (client.uid != lock->pin->uid && !owns(client, space)) {
    return refuse(LockErrc::kNotYours,
                  fmt::format("'{}' was pinned by uid {}", arguments[0], lock->pin->uid));
  }
  table_.unpin(*lock);
  return "";
}

LockFs::Answer LockFs::control_break(Lockspace& space, const Client& client,
                                     const Arguments& arguments) {
  if (!owns(client, space)) return not_owner(space);
  Lock* lock = table_.find(space, lock_name(arguments[0]));
  if (lock == nullptr || !lock->held()) {
    return refuse(LockErrc::kNotFound, "'" + arguments[0] + "' is not held");
  }
  std::string why;
  for (size_t i = 1; i < arguments.size(); ++i) why += " " + arguments[i];
  spdlog::warn("break {}/{} ({}) by uid {} pid {}:{}", space.name, lock->name,
               holders_in_words(*lock), client.uid, client.pid,
               why.empty() ? " no reason given" : why);
  const size_t count =
      table_.break_lock(*lock, fmt::format("broken by uid {} pid {}{}{}", client.uid, client.pid,
                                           why.empty() ? "" : ":", why));
  return said(std::to_string(count));
}

LockFs::Answer LockFs::control_capacity(Lockspace& space, const Client& client,
                                        const Arguments& arguments) {
  if (arguments.empty()) return said(std::to_string(space.capacity));
  const auto number = parse_number(arguments[0], 1, 100000000);
  if (!number) return refuse(LockErrc::kInvalid, number.error());
  if (!owns(client, space)) return not_owner(space);
  space.capacity = *number;
  return said(std::to_string(space.capacity));
}

LockFs::Answer LockFs::control_stats(Lockspace& space, const Client& /*client*/,
                                     const Arguments& /*arguments*/) {
  uint64_t held = 0;
  uint64_t waiters = 0;
  uint64_t pinned = 0;
  uint64_t allocated = 0;
  for (const auto& [name, lock] : space.locks) {
    held += lock.held() ? 1 : 0;
    waiters += lock.waiters();
    pinned += lock.pin ? 1 : 0;
    allocated += lock.pin && lock.pin->allocated ? 1 : 0;
  }
  return fmt::format("held: {}\nwaiters: {}\npinned: {}\nallocated: {}\ncapacity: {}\n", held,
                     waiters, pinned, allocated, space.capacity);
}

}  // namespace lockfs
