// SPDX-License-Identifier: MIT
// The commands of a lockspace's .ctl, a function each.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <memory>
#include <unordered_set>

#include "core/lock_name.h"
#include "fs/lock_fs.h"

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

// .ctl holds nobody up: it may wait longer for a list than a directory does.
constexpr auto kListTime = std::chrono::seconds(30);

tl::unexpected<Refusal> cannot_look(const Lockspace& space) {
  return refuse(LockErrc::kUnreachable,
                "the backend of lockspace " + space.name +
                    " does not answer; nothing was changed; .lockfs/traits says why");
}

// Of a lock that nobody holds here.
tl::unexpected<Refusal> cannot_break(const std::string& name, const RemoteLock& remote) {
  for (const RemoteClaim& claim : remote.claims) {
    if (claim.waiting) continue;
    const Presence& who = claim.who;
    return refuse(LockErrc::kNotSupported,
                  fmt::format("'{}' is held through another mount, by pid {} ({}) on {}: break it "
                              "there, or end that process",
                              name, who.pid, who.comm, who.host.empty() ? "a host" : who.host));
  }
  return refuse(LockErrc::kNotFound, "'" + name + "' is not held");
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
      {"leave", "leave [force]", 0, 1, &LockFs::control_leave},
  };
  return verbs;
}

void LockFs::control_write(fuse_req_t req, HandleId id, std::string_view data) {
  const Handle& handle = *handles_.find(id);
  Lockspace* space = space_of(handle);
  if (NodeTable::kind(handle.node) != NodeKind::kControl || space == nullptr) {
    return void(fuse_reply_err(req, EPERM));
  }
  // A privileged program may be led to write to what an ordinary user opened, as in
  // `sudo echo > .ctl`: then it is the user who asks.
  const Client writer = client_of(req);
  const Client& opener = handle.opener;
  const Client client = owns(opener, *space) ? writer : Client{writer.pid, opener.uid, opener.gid};
  control(*space, client, data,
          [this, req, id, client, space = space->name, text = std::string(data)](Answer answer) {
            Handle* asked = handles_.find(id);
            if (asked != nullptr) {
              asked->answer = answer ? *answer : said("error: " + answer.error().words);
            }
            if (answer) return void(fuse_reply_write(req, text.size()));
            if (answer.error().why == LockErrc::kNotYours &&
                log_limit_.admits(client.uid, "commands refused")) {
              spdlog::warn("'{}' in lockspace {} refused to uid {} pid {}: {}", text, space,
                           client.uid, client.pid, answer.error().words);
            }
            fuse_reply_err(req, to_errno(answer.error().why));
          });
}

void LockFs::control(Lockspace& space, const Client& client, std::string_view text,
                     const Reply& reply) {
  if (text.size() > kMaxCommand) {
    return reply(refuse(LockErrc::kInvalid, "a command has at most 4096 bytes, this one " +
                                                std::to_string(text.size())));
  }
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const auto words = split_words(text);
  if (!words) return reply(refuse(LockErrc::kInvalid, words.error()));
  if (words->empty())
    return reply(refuse(LockErrc::kInvalid, "an empty command; for example stats"));
  const std::vector<std::string> arguments(words->begin() + 1, words->end());
  std::string usages;
  for (const ControlVerb& verb : control_verbs()) {
    usages += (usages.empty() ? "" : " | ") + std::string(verb.usage);
    if (words->front() != verb.name) continue;
    if (arguments.size() < verb.least || arguments.size() > verb.most) {
      return reply(refuse(LockErrc::kInvalid, "it is: " + std::string(verb.usage)));
    }
    return (this->*verb.run)(space, client, arguments, [reply, name = verb.name](Answer answer) {
      if (!answer) answer.error().words.insert(0, std::string(name) + ": ");
      reply(std::move(answer));
    });
  }
  reply(
      refuse(LockErrc::kInvalid, "unknown command '" + words->front() + "'; commands: " + usages));
}

// What became of a pin; on success the answer is `answer`.
LockFs::Answer LockFs::pinned(LockErrc result, const Client& client, const std::string& answer) {
  if (result == LockErrc::kOk) return answer;
  if (result != LockErrc::kLimit) return refuse(result, make_error_code(result).message());
  if (log_limit_.admits(client.uid, "pins refused")) {
    spdlog::warn("pin refused to uid {} pid {}: max_names_per_user={} is reached", client.uid,
                 client.pid, options_.max_names_per_user);
  }
  return refuse(result, fmt::format("a limit is reached: {}", limit_in_words(client)));
}

// Looks at all locks of the lockspace, for `then`; a backend that does not answer is the answer.
void LockFs::look_through(
    Lockspace& space, const Reply& reply,
    const std::function<void(Lockspace&, const std::vector<RemoteLock>&)>& then) {
  const auto told = [=, this, id = space.id](LockErrc result,
                                             const std::vector<RemoteLock>& locks) {
    Lockspace* seen = table_.find_lockspace(id);
    if (seen == nullptr) return reply(refuse(LockErrc::kNotFound, "the lockspace is gone"));
    if (result != LockErrc::kOk) return reply(cannot_look(*seen));
    then(*seen, locks);
  };
  table_.look_all(space, told, kListTime);
}

void LockFs::control_allocate(Lockspace& space, const Client& client, const Arguments& arguments,
                              const Reply& reply) {
  if (arguments.empty()) {
    return look_through(space, reply,
                        [=, this](Lockspace& seen, const std::vector<RemoteLock>& locks) {
                          std::unordered_set<std::string> elsewhere;
                          for (const RemoteLock& lock : locks) elsewhere.insert(lock.name);
                          allocate(seen.id, elsewhere, client, reply);
                        });
  }
  const auto number = parse_number(arguments[0], 0, space.capacity - 1);
  if (!number) return reply(refuse(LockErrc::kInvalid, number.error()));
  const std::string name = std::to_string(*number);
  table_.pin(space, name, {client.uid, 0666, true}, true, [=, this](LockErrc result) {
    if (result == LockErrc::kExists)
      return reply(refuse(result, name + " is taken; allocate without a number finds a free one"));
    reply(pinned(result, client, said(name)));
  });
}

// The lowest number that nobody has, here or `elsewhere`; if another node is faster, the next.
void LockFs::allocate(uint32_t space_id, const std::unordered_set<std::string>& elsewhere,
                      const Client& client, const Reply& reply) {
  Lockspace* space = table_.find_lockspace(space_id);
  if (space == nullptr) return reply(refuse(LockErrc::kNotFound, "the lockspace is gone"));
  uint64_t number = space->lowest_free;
  for (; number < space->capacity; ++number) {
    const std::string name = std::to_string(number);
    const Lock* lock = table_.find(*space, name);
    if ((lock == nullptr || !lock->visible()) && !elsewhere.contains(name)) break;
    // Only a pin is sure to report its end.
    if (lock != nullptr && lock->pin && number == space->lowest_free) ++space->lowest_free;
  }
  if (number >= space->capacity) {
    return reply(
        refuse(LockErrc::kExhausted,
               fmt::format("all {} numbers of this lockspace are taken: free ID, or capacity N for "
                           "more",
                           space->capacity)));
  }
  const std::string name = std::to_string(number);
  table_.pin(*space, name, {client.uid, 0666, true}, true,
             [=, this, taken = elsewhere](LockErrc result) mutable {
               if (result != LockErrc::kExists) return reply(pinned(result, client, said(name)));
               taken.insert(name);
               allocate(space_id, taken, client, reply);
             });
}

// Takes a pin away if it is the client's, or the client owns the lockspace.
void LockFs::unpin_own(Lockspace& space, const std::string& name, const Client& client,
                       const Reply& reply) {
  const Lock& lock = *table_.find(space, name);
  if (client.uid != lock.pin->uid && !owns(client, space)) {
    return reply(
        refuse(LockErrc::kNotYours,
               fmt::format("'{}' was {} by uid {}: that user, the lockspace's owner or "
                           "root may do it",
                           name, lock.pin->allocated ? "allocated" : "pinned", lock.pin->uid)));
  }
  table_.unpin(space, name, [=, this](LockErrc result) { reply(pinned(result, client, "")); });
}

void LockFs::control_free(Lockspace& space, const Client& client, const Arguments& arguments,
                          const Reply& reply) {
  const auto number = parse_number(arguments[0], 0, UINT64_MAX);
  if (!number) {
    return reply(refuse(LockErrc::kInvalid, as_said(arguments[0]) + " is not a whole number"));
  }
  const std::string name = std::to_string(*number);
  table_.look(space, name, [=, this, id = space.id](LockErrc result, const RemoteLock&) {
    Lockspace* seen = table_.find_lockspace(id);
    if (seen != nullptr && result != LockErrc::kOk) return reply(cannot_look(*seen));
    const Lock* lock = seen != nullptr ? table_.find(*seen, name) : nullptr;
    if (lock == nullptr || !lock->pin || !lock->pin->allocated) {
      return reply(refuse(LockErrc::kNotFound, name + " is not allocated"));
    }
    unpin_own(*seen, name, client, reply);
  });
}

void LockFs::control_free_all(Lockspace& space, const Client& client,
                              const Arguments& /*arguments*/, const Reply& reply) {
  if (!owns(client, space)) return reply(not_owner(space));
  look_through(space, reply, [=, this](Lockspace& seen, const std::vector<RemoteLock>&) {
    std::vector<std::string> allocated;
    for (auto& [name, lock] : seen.locks) {
      if (lock.pin && lock.pin->allocated) allocated.push_back(name);
    }
    struct Freeing {
      size_t left;
      size_t freed = 0;
    };
    const auto freeing = std::make_shared<Freeing>(Freeing{allocated.size()});
    if (allocated.empty()) return reply(said("0"));
    for (const std::string& name : allocated) {
      table_.unpin(seen, name, [freeing, reply](LockErrc result) {
        if (result == LockErrc::kOk || result == LockErrc::kNotFound) ++freeing->freed;
        if (--freeing->left != 0) return;
        reply(said(std::to_string(freeing->freed)));
      });
    }
  });
}

void LockFs::control_pin(Lockspace& space, const Client& client, const Arguments& arguments,
                         const Reply& reply) {
  const std::string& file = arguments[0];
  const std::string name = lock_name(file);
  const bool taken = file == ".ctl" || file == "." || file == "..";
  if (name.empty() || name.size() > space.backend->traits().max_name_bytes || taken ||
      file.find('/') != std::string::npos) {
    return reply(
        refuse(LockErrc::kInvalid,
               fmt::format("'{}' cannot be the name of a lock here: it has 1 to {} bytes, no "
                           "'/', and is none of . .. .ctl",
                           file, space.backend->traits().max_name_bytes)));
  }
  table_.pin(space, name, {client.uid, 0666, false}, true, [=, this](LockErrc result) {
    reply(pinned(result == LockErrc::kExists ? LockErrc::kOk : result, client, ""));
  });
}

void LockFs::control_unpin(Lockspace& space, const Client& client, const Arguments& arguments,
                           const Reply& reply) {
  const std::string name = lock_name(arguments[0]);
  table_.look(space, name,
              [=, this, id = space.id, file = arguments[0]](LockErrc, const RemoteLock&) {
                Lockspace* seen = table_.find_lockspace(id);
                const Lock* lock = seen != nullptr ? table_.find(*seen, name) : nullptr;
                if (lock == nullptr || !lock->pin) {
                  return reply(refuse(LockErrc::kNotFound, "'" + file + "' is not pinned"));
                }
                unpin_own(*seen, name, client, reply);
              });
}

void LockFs::control_break(Lockspace& space, const Client& client, const Arguments& arguments,
                           const Reply& reply) {
  if (!owns(client, space)) return reply(not_owner(space));
  Lock* lock = table_.find(space, lock_name(arguments[0]));
  if (lock == nullptr || !lock->held()) {
    return table_.look(space, lock_name(arguments[0]),
                       [reply, name = arguments[0]](LockErrc /*result*/, const RemoteLock& remote) {
                         reply(cannot_break(name, remote));
                       });
  }
  std::string why;
  for (size_t i = 1; i < arguments.size(); ++i) why += " " + arguments[i];
  if (log_limit_.admits(client.uid, "breaks")) {
    spdlog::warn("break {}/{} ({}) by uid {} pid {}:{}", space.name, lock->name(),
                 holders_in_words(*lock), client.uid, client.pid,
                 why.empty() ? " no reason given" : why);
  }
  const size_t count =
      table_.break_lock(*lock, fmt::format("broken by uid {} pid {}{}{}", client.uid, client.pid,
                                           why.empty() ? "" : ":", why));
  return reply(said(std::to_string(count)));
}

void LockFs::control_capacity(Lockspace& space, const Client& client, const Arguments& arguments,
                              const Reply& reply) {
  if (arguments.empty()) return reply(said(std::to_string(space.capacity)));
  const auto number = parse_number(arguments[0], 1, 100000000);
  if (!number) return reply(refuse(LockErrc::kInvalid, number.error()));
  if (!owns(client, space)) return reply(not_owner(space));
  space.capacity = *number;
  return reply(said(std::to_string(space.capacity)));
}

// rmdir; with `force`, who holds there is told that the lock is lost.
void LockFs::control_leave(Lockspace& space, const Client& client, const Arguments& arguments,
                           const Reply& reply) {
  const bool force = !arguments.empty();
  if (force && arguments[0] != "force") {
    return reply(refuse(LockErrc::kInvalid, "it is: leave [force]"));
  }
  if (!owns(client, space)) return reply(not_owner(space));
  if (space.name == "default") {
    return reply(refuse(LockErrc::kBusy, "default is always there: unmount to leave it"));
  }
  if (log_limit_.admits(client.uid, "lockspaces left")) {
    spdlog::warn("leave {}{} by uid {} pid {}", space.name, force ? " force" : "", client.uid,
                 client.pid);
  }
  table_.leave_lockspace(space, force, [reply](LockErrc result) {
    if (result == LockErrc::kOk) return reply(said(""));
    reply(refuse(result, result == LockErrc::kBusy
                             ? "locks are open or pinned in it, here or by other programs of this "
                               "host: close and unpin them; 'leave force' breaks what is held"
                             : make_error_code(result).message()));
  });
}

void LockFs::control_stats(Lockspace& space, const Client& /*client*/,
                           const Arguments& /*arguments*/, const Reply& reply) {
  look_through(space, reply, [=](Lockspace& seen, const std::vector<RemoteLock>& locks) {
    std::unordered_set<std::string_view> held;
    uint64_t waiters = 0;
    uint64_t pinned = 0;
    uint64_t allocated = 0;
    for (const auto& [name, lock] : seen.locks) {
      if (lock.held()) held.insert(name);
      waiters += lock.waiters();
      pinned += lock.pin ? 1 : 0;
      allocated += lock.pin && lock.pin->allocated ? 1 : 0;
    }
    for (const RemoteLock& lock : locks) {
      if (lock.held()) held.insert(lock.name);
    }
    reply(fmt::format("held: {}\nwaiters: {}\npinned: {}\nallocated: {}\ncapacity: {}\n",
                      held.size(), waiters, pinned, allocated, seen.capacity));
  });
}

}  // namespace lockfs
