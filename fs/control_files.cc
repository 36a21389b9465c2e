// SPDX-License-Identifier: MIT
// The files of .lockfs, and the commands of a lockspace's .ctl.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "fs/lock_fs.h"
#include "fs/lock_name.h"

#ifndef LOCKFS_VERSION
#error LOCKFS_VERSION comes from the build
#endif

namespace lockfs {
namespace {

std::string said(const std::string& words) { return words + "\n"; }

std::string not_owner(const std::string& what, const Lockspace& space) {
  return fmt::format("{}: only root and the lockspace's owner (uid {}) may do that", what,
                     space.uid);
}

}  // namespace

std::string LockFs::info_text(NodeId node, const Client& reader) {
  const std::string& file = info_files().at(node - NodeTable::kFirstInfoFile);
  if (file == "version") return said(LOCKFS_VERSION);
  if (file == "config") return config_text();
  if (file == "traits") return traits_text();
  if (file == "locks.json") return locks_json(reader);
  return painter_.waits([&](const Lockspace& space) { return may_read(reader, space); });
}

std::string LockFs::config_text() const {
  std::string out;
  for (const auto& [key, value] : option_values(options_)) {
    out += fmt::format("{}: {}\n", key, nlohmann::json(value).dump());
  }
  return out;
}

std::string LockFs::traits_text() const {
  nlohmann::ordered_json out;
  for (const auto& [id, space] : table_.lockspaces()) {
    const LockTraits& traits = space->backend->traits();
    out[space->name] = {{"backend", traits.name},
                        {"shared_modes", traits.shared_modes},
                        {"fifo", traits.fifo},
                        {"contention_hints", traits.contention_hints},
                        {"slots", traits.slots},
                        {"other_nodes", traits.other_nodes},
                        {"sees_other_nodes", traits.sees_other_nodes},
                        {"max_name_bytes", traits.max_name_bytes}};
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string LockFs::locks_json(const Client& reader) {
  nlohmann::json locks = nlohmann::json::array();
  for (const auto& [id, space] : table_.lockspaces()) {
    if (!may_read(reader, *space)) continue;
    for (const auto& [name, lock] : space->locks) {
      if (lock.visible() || lock.waiters() != 0) locks.push_back(painter_.as_json(lock));
    }
  }
  const nlohmann::json all = {{"locks", locks}};
  return all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void LockFs::control_write(fuse_req_t req, Handle& handle, std::string_view data) {
  Lockspace* space = space_of(handle);
  if (NodeTable::kind(handle.node) != NodeKind::kControl || space == nullptr) {
    return void(fuse_reply_err(req, EPERM));
  }
  LockErrc result = LockErrc::kInvalid;
  std::string_view text = data;
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const auto words = split_words(text);
  if (data.size() > kMaxCommand) {
    handle.answer = "a command has at most 4096 bytes";
  } else if (!words) {
    handle.answer = words.error();
  } else if (words->empty()) {
    handle.answer = "an empty command";
  } else {
    handle.answer = control(*space, client_of(req), *words, result);
  }
  if (result == LockErrc::kOk) return void(fuse_reply_write(req, data.size()));
  handle.answer = said("error: " + handle.answer);
  fuse_reply_err(req, to_errno(result));
}

std::string LockFs::control(Lockspace& space, const Client& client,
                            const std::vector<std::string>& words, LockErrc& result) {
  const std::string& verb = words.front();
  const bool has_name = words.size() >= 2 && !words[1].empty();
  const std::string name = has_name ? lock_name(words[1]) : std::string();
  const auto ok = [&](std::string answer) {
    result = LockErrc::kOk;
    return answer;
  };
  const auto refuse = [&](LockErrc why, std::string answer) {
    result = why;
    return answer;
  };
  if (verb == "stats" && words.size() == 1) return ok(space_stats(space));
  if (verb == "allocate") return allocate(space, client, words, result);
  if (verb == "free" && words.size() == 2) return free_number(space, client, words[1], result);
  if (verb == "capacity" && words.size() == 1) return ok(said(std::to_string(space.capacity)));
  if (verb == "capacity" && words.size() == 2) {
    const auto number = parse_number(words[1], 1, 100000000);
    if (!number) return refuse(LockErrc::kInvalid, "capacity: " + number.error());
    if (!owns(client, space)) return refuse(LockErrc::kNotYours, not_owner(verb, space));
    space.capacity = *number;
    return ok(said(words[1]));
  }
  if (verb == "free-all" && words.size() == 1) {
    if (!owns(client, space)) return refuse(LockErrc::kNotYours, not_owner(verb, space));
    std::vector<Lock*> allocated;
    for (auto& [key, lock] : space.locks) {
      if (lock.pin && lock.pin->allocated) allocated.push_back(&lock);
    }
    for (Lock* lock : allocated) table_.unpin(*lock);
    return ok(said(std::to_string(allocated.size())));
  }
  if (verb == "pin" && words.size() == 2 && has_name) {
    if (name.size() > space.backend->traits().max_name_bytes || words[1] == ".ctl" ||
        words[1] == "." || words[1] == ".." || words[1].find('/') != std::string::npos) {
      return refuse(LockErrc::kInvalid, "pin: that cannot be the name of a lock here");
    }
    result = table_.pin(space, name, client, false);
    return result == LockErrc::kOk ? "" : "pin: your limit of names is reached";
  }
  if (verb == "unpin" && words.size() == 2 && has_name) {
    Lock* lock = table_.find(space, name);
    if (lock == nullptr || !lock->pin) {
      return refuse(LockErrc::kNotFound, "unpin: '" + words[1] + "' is not pinned");
    }
    if (client.uid != lock->pin->uid && !owns(client, space)) {
      return refuse(LockErrc::kNotYours,
                    fmt::format("unpin: '{}' was pinned by uid {}", words[1], lock->pin->uid));
    }
    table_.unpin(*lock);
    return ok("");
  }
  if (verb == "break" && words.size() >= 2 && has_name) {
    if (!owns(client, space)) return refuse(LockErrc::kNotYours, not_owner(verb, space));
    Lock* lock = table_.find(space, name);
    if (lock == nullptr || !lock->held()) {
      return refuse(LockErrc::kNotFound, "break: '" + words[1] + "' is not held");
    }
    std::string why;
    for (size_t i = 2; i < words.size(); ++i) why += " " + words[i];
    spdlog::warn("break {}/{} ({}) by uid {} pid {}:{}", space.name, words[1],
                 holders_in_words(*lock), client.uid, client.pid,
                 why.empty() ? " no reason given" : why);
    const size_t count =
        table_.break_lock(*lock, fmt::format("broken by uid {} pid {}{}{}", client.uid, client.pid,
                                             why.empty() ? "" : ":", why));
    return ok(said(std::to_string(count)));
  }
  return refuse(LockErrc::kInvalid,
                "commands: allocate [ID] | free ID | free-all | pin NAME | unpin NAME | "
                "break NAME [why] | capacity [N] | stats; got '" +
                    words.front() + "' with " + std::to_string(words.size() - 1) + " more words");
}

std::string LockFs::allocate(Lockspace& space, const Client& client,
                             const std::vector<std::string>& words, LockErrc& result) {
  std::string id;
  if (words.size() > 2) return "allocate takes one ID or none";
  if (words.size() == 2) {
    const auto number = parse_number(words[1], 0, space.capacity - 1);
    if (!number) return "allocate: " + number.error();
    id = std::to_string(*number);
    const Lock* lock = table_.find(space, id);
    result = LockErrc::kExists;
    if (lock != nullptr && lock->pin) return "allocate: " + id + " is taken";
  } else {
    uint64_t number = space.lowest_free;
    for (; number < space.capacity; ++number) {
      const Lock* lock = table_.find(space, std::to_string(number));
      if (lock == nullptr || !lock->visible()) break;
      // Only a pin is sure to report its end, in unpin().
      if (lock->pin && number == space.lowest_free) ++space.lowest_free;
    }
    if (number >= space.capacity) {
      result = LockErrc::kExhausted;
      return fmt::format("allocate: all {} numbers of this lockspace are taken", space.capacity);
    }
    id = std::to_string(number);
  }
  result = table_.pin(space, id, client, true);
  if (result != LockErrc::kOk) return "allocate: your limit of names is reached";
  return said(id);
}

std::string LockFs::free_number(Lockspace& space, const Client& client, const std::string& word,
                                LockErrc& result) {
  const auto number = parse_number(word, 0, UINT64_MAX);
  if (!number) return "free: " + number.error();
  Lock* lock = table_.find(space, std::to_string(*number));
  result = LockErrc::kNotFound;
  if (lock == nullptr || !lock->pin || !lock->pin->allocated) {
    return "free: " + word + " is not allocated";
  }
  result = LockErrc::kNotYours;
  if (client.uid != lock->pin->uid && !owns(client, space)) {
    return fmt::format("free: {} was allocated by uid {}", word, lock->pin->uid);
  }
  table_.unpin(*lock);
  result = LockErrc::kOk;
  return "";
}

std::string LockFs::space_stats(const Lockspace& space) {
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
