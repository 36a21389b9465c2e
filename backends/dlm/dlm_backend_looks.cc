// SPDX-License-Identifier: MIT
// What the mounts tell each other: who holds a lock and who waits, what is only kept, and pins.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "backends/dlm/dlm_backend.h"

namespace lockfs {
namespace {

// Locks in one message, of which corosync takes up to a megabyte.
constexpr size_t kLocksInMessage = 400;

RemoteClaim claim_of(const dlm::Told& told, bool waiting) {
  RemoteClaim out;
  out.mode = waiting ? told.wanted : told.held;
  out.waiting = waiting;
  out.token = waiting ? 0 : told.who.token;
  out.who = told.who;
  return out;
}

void add_claims(const dlm::Told& told, std::vector<RemoteClaim>& claims) {
  if (told.held != Mode::kNL) claims.push_back(claim_of(told, false));
  if (told.wanted != Mode::kNL) claims.push_back(claim_of(told, true));
}

}  // namespace

void DlmBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  if (broken_) return events_->answered(query, LockErrc::kUnreachable, {});
  Space& space = space_of(lockspace);
  const auto lock = std::string(name);
  if (space.pins.known()) return look({query, false}, space, lock);
  when_known(space, query, [this, query, &space, lock] { look({query, false}, space, lock); });
}

// To have it in EX is to know that nobody else holds it: so we try that, and keep it a while if
// it could be had. Only when it cannot, the others are asked.
void DlmBackend::look(Looker looker, Space& space, const std::string& name) {
  if (space.left) return refuse(looker.query);
  Resource* resource = find(space, name);
  if (!quorate_) {
    return ask(space, name, [this, looker, &space, name](const Replies& replies) {
      if (!replies.empty()) return answer(looker.query, space, name, replies, false);
      events_->answered(looker.query, LockErrc::kUnreachable, {});
    });
  }
  if (resource == nullptr) {
    Resource& made = make(space, name);
    made.lookers.push_back(looker);
    return request(made, Busy::kOwn, {Mode::kEX, true});
  }
  if (!resource->lookers.empty()) return resource->lookers.push_back(looker);
  if (resource->idle() && resource->held == Mode::kEX && !resource->wanted) {
    return answer(looker.query, space, name, {}, false);
  }
  ask(space, name, [this, looker, &space, name](const Replies& replies) {
    answer(looker.query, space, name, replies, false);
  });
}

void DlmBackend::look_refused(Resource& resource, LockErrc why) {
  resource.busy = Busy::kNo;
  forget_number(resource);
  const auto lookers = std::exchange(resource.lookers, {});
  Space& space = *resource.space;
  const std::string name = resource.name;
  settle(resource);
  for (const Looker& looker : lookers) {
    if (why != LockErrc::kWouldBlock) {
      events_->answered(looker.query, LockErrc::kUnreachable, {});
      continue;
    }
    ask(space, name, [this, looker, &space, name](const Replies& replies) {
      const bool held = std::any_of(replies.begin(), replies.end(),
                                    [](const auto& told) { return told.held != Mode::kNL; });
      // Nobody has it now, unless a program that is none of ours.
      if (!held && !looker.again) return look({looker.query, true}, space, name);
      answer(looker.query, space, name, replies, !held);
    });
  }
}

void DlmBackend::answer(QueryId query, Space& space, const std::string& name,
                        const Replies& replies, bool foreign) {
  std::vector<RemoteLock> locks;
  const auto pin = space.pins.of(name);
  if (pin || foreign || !replies.empty()) {
    RemoteLock lock{name, pin, {}};
    for (const dlm::Told& told : replies) add_claims(told, lock.claims);
    if (foreign) lock.claims.push_back({Mode::kEX, false, 0, {}});
    locks.push_back(std::move(lock));
  }
  events_->answered(query, LockErrc::kOk, std::move(locks));
}

void DlmBackend::list(QueryId query, std::string_view lockspace) {
  if (broken_) return events_->answered(query, LockErrc::kUnreachable, {});
  Space& space = space_of(lockspace);
  const auto asked = [this, query, &space] {
    ask(space, "", [this, query, &space](const Replies& replies) {
      std::map<std::string, RemoteLock> locks;
      for (const auto& [name, pin] : space.pins.all()) locks[name].pin = pin;
      for (const dlm::Told& told : replies) add_claims(told, locks[told.name].claims);
      std::vector<RemoteLock> all;
      for (auto& [name, lock] : locks) {
        lock.name = name;
        all.push_back(std::move(lock));
      }
      events_->answered(query, LockErrc::kOk, std::move(all));
    });
  };
  when_known(space, query, asked);
}

void DlmBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                     const Pin& pin, bool fresh) {
  Message message;
  message.kind = Message::Kind::kPin;
  message.number = static_cast<uint64_t>(query);
  message.name = name;
  message.pin = pin;
  message.fresh = fresh;
  send_pin(space_of(lockspace), std::move(message));
}

void DlmBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  Message message;
  message.kind = Message::Kind::kUnpin;
  message.number = static_cast<uint64_t>(query);
  message.name = name;
  send_pin(space_of(lockspace), std::move(message));
}

void DlmBackend::send_pin(Space& space, Message message) {
  const QueryId query{message.number};
  if (broken_) return events_->answered(query, LockErrc::kUnreachable, {});
  when_known(space, query, [this, &space, query, message = std::move(message)] {
    space.pinning.insert(query);
    send(space, message);
  });
}

// Once we are among the mounts of the lockspace, and know its pins. Whoever asks has a patience of
// its own.
void DlmBackend::when_known(Space& space, QueryId query, std::function<void()> work) {
  if (space.pins.known()) return work();
  space.until_known.emplace_back(query, std::move(work));
}

void DlmBackend::send(const Space& space, const Message& message) {
  group_thread_.post(
      [this, name = space.name, text = to_text(message)] { group_->send(name, text); });
}

// Done with the answers of all who are not known to be silent.
void DlmBackend::ask(Space& space, const std::string& name, Answered done) {
  if (space.left || (space.pins.known() && space.members.size() == 1)) return done({});
  const uint64_t number = ++last_number_;
  Question& question = questions_[number];
  question.space = &space;
  question.done = std::move(done);
  const auto patience = name.empty() ? Duration(kListTime) : Duration(kAskTime);
  question.timer = loop_.timers.schedule(loop_.timers.now() + patience, [this, number] {
    questions_.at(number).timer = TimerId::kNone;
    finish(number);
  });
  Message message;
  message.kind = Message::Kind::kAsk;
  message.number = number;
  message.name = name;
  send(space, message);
}

void DlmBackend::answered_by(uint64_t number, Member who) {
  const auto found = questions_.find(number);
  if (found == questions_.end() || !found->second.missing) return;
  found->second.missing->erase(who);
  if (found->second.missing->empty()) finish(number);
}

void DlmBackend::finish(uint64_t number) {
  const auto found = questions_.find(number);
  if (found == questions_.end()) return;
  Question question = std::move(found->second);
  questions_.erase(found);
  loop_.timers.cancel(question.timer);
  if (question.missing) question.space->silent.merge(*question.missing);
  question.done(question.replies);
}

std::vector<uint64_t> DlmBackend::questions_of(const Space& space) const {
  std::vector<uint64_t> open;
  for (const auto& [number, question] : questions_) {
    if (question.space == &space) open.push_back(number);
  }
  return open;
}

// As others see it: what is only kept, or had too much, is not held.
dlm::Told DlmBackend::told_of(const Resource& resource) const {
  dlm::Told told;
  told.name = resource.name;
  if (resource.claim == ClaimId::kNone) return told;
  told.held = resource.told;
  if (resource.busy == Busy::kClaim && !resource.asked.now) told.wanted = resource.asked.mode;
  if (resource.next && !resource.next->now) told.wanted = resource.next->mode;
  told.who = resource.who;
  return told;
}

void DlmBackend::tell(const Space& space, Member to, uint64_t number, Replies locks) {
  Message message;
  message.kind = Message::Kind::kTell;
  message.number = number;
  message.to_node = to.node;
  message.to_pid = to.pid;
  while (locks.size() > kLocksInMessage) {
    const auto end = locks.begin() + static_cast<ptrdiff_t>(kLocksInMessage);
    message.locks.assign(std::make_move_iterator(locks.begin()), std::make_move_iterator(end));
    locks.erase(locks.begin(), end);
    send(space, message);
  }
  message.locks = std::move(locks);
  message.last = true;
  send(space, message);
}

void DlmBackend::answer_ask(Space& space, Member from, const Message& message) {
  const auto shown = [](const dlm::Told& told) {
    return told.held != Mode::kNL || told.wanted != Mode::kNL;
  };
  Replies replies;
  if (message.name.empty()) {
    for (const auto& [name, resource] : space.resources) {
      dlm::Told told = told_of(resource);
      if (shown(told)) replies.push_back(std::move(told));
    }
    return tell(space, from, message.number, std::move(replies));
  }
  Resource* resource = find(space, message.name);
  if (resource != nullptr && shown(told_of(*resource))) replies.push_back(told_of(*resource));
  const auto reply = [this, name = space.name, from, number = message.number, replies] {
    const auto found = spaces_.find(name);
    if (found != spaces_.end()) tell(found->second, from, number, replies);
  };
  if (resource == nullptr) return reply();
  resource->wanted = true;
  if (resource->kept) {
    when_gone_[resource->no] = reply;
    return drop(*resource);
  }
  const bool gives_back = resource->told != resource->held && resource->claim != ClaimId::kNone;
  if (gives_back && (resource->idle() || resource->busy == Busy::kOwn)) {
    resource->after_own.push_back(reply);
    return resource->idle() ? settle(*resource) : void();
  }
  reply();
}

void DlmBackend::heard(const std::string& dlm_name, Member from, const Message& message) {
  const auto found = spaces_.find(dlm_name);
  if (found == spaces_.end()) return;
  Space& space = found->second;
  const Member to{message.to_node, message.to_pid};
  space.silent.erase(from);
  switch (message.kind) {
    case Message::Kind::kAsk: {
      if (from != space.self) return answer_ask(space, from, message);
      const auto asked = questions_.find(message.number);
      if (asked == questions_.end()) return;
      asked->second.missing.emplace(space.members.begin(), space.members.end());
      for (const Member& silent : space.silent) asked->second.missing->erase(silent);
      return answered_by(message.number, space.self);
    }
    case Message::Kind::kTell: {
      const auto asked = questions_.find(message.number);
      if (to != space.self || asked == questions_.end()) return;
      Replies& replies = asked->second.replies;
      replies.insert(replies.end(), message.locks.begin(), message.locks.end());
      if (message.last) answered_by(message.number, from);
      return;
    }
    case Message::Kind::kPin:
    case Message::Kind::kUnpin: {
      const LockErrc result = space.pins.change(message);
      const QueryId query{message.number};
      if (from == space.self && space.pinning.erase(query) != 0) {
        events_->answered(query, result, {});
      }
      return;
    }
    case Message::Kind::kPins: space.pins.take(space.self, from, message); return be_known(space);
    case Message::Kind::kFloor:
      for (const dlm::Told& told : message.locks) {
        const auto counter = static_cast<size_t>(std::strtoul(told.name.c_str(), nullptr, 10));
        tokens_.floor(space.name, counter, told.who.token, from == space.self);
      }
      return;
    case Message::Kind::kPlease:
      if (from != space.self && space.pins.known()) say_pins(space, from);
      return;
  }
}

void DlmBackend::say_floors(const Space& space,
                            const std::vector<std::pair<size_t, uint64_t>>& floors) {
  Message message;
  message.kind = Message::Kind::kFloor;
  for (const auto& [counter, token] : floors) {
    dlm::Told told;
    told.name = std::to_string(counter);
    told.who.token = token;
    message.locks.push_back(std::move(told));
  }
  send(space, message);
}

// The floors before the pins: who has those is ready.
void DlmBackend::say_pins(const Space& space, Member to) {
  say_floors(space, tokens_.floors(space.name));
  for (const Message& message : space.pins.say_all(to)) send(space, message);
}

// Once the pins are known, goes on with what waited for them; until then asks for them, for who
// should tell us may be stopped.
void DlmBackend::be_known(Space& space) {
  if (space.pins.known()) {
    for (const auto& [query, work] : std::exchange(space.until_known, {})) work();
    return;
  }
  if (std::exchange(space.asks_for_pins, true)) return;
  outlet_->after(kPinsTime, [this, name = space.name] {
    const auto found = spaces_.find(name);
    if (found == spaces_.end()) return;
    found->second.asks_for_pins = false;
    if (found->second.pins.known()) return;
    Message please;
    please.kind = Message::Kind::kPlease;
    send(found->second, please);
    be_known(found->second);
  });
}

void DlmBackend::members(const std::string& dlm_name, Member self, const dlm::Membership& now,
                         bool doubtful) {
  const auto found = spaces_.find(dlm_name);
  if (found == spaces_.end()) return;
  Space& space = found->second;
  space.self = self;
  space.members = now.all;
  const auto is_gone = [&](const Member& m) {
    return std::find(now.all.begin(), now.all.end(), m) == now.all.end();
  };
  std::erase_if(space.silent, is_gone);
  space.deaths += now.gone.size();
  space.buried.insert(now.gone.begin(), now.gone.end());
  for (const Member& to : space.pins.members(self, now.all, now.joined)) say_pins(space, to);
  if (now.all.empty()) return forget_group(space);
  for (const uint64_t number : questions_of(space)) {
    for (const Member& gone : now.left) answered_by(number, gone);
  }
  be_known(space);
  for (const Member& back : now.joined) {
    if (space.buried.erase(back) != 0 && doubtful) two_halves_met(back.node);
  }
}

// A node that was taken for dead is back as it was, without fencing and where both of two halves
// have quorum: each side may have granted what the other held.
void DlmBackend::two_halves_met(uint32_t node) {
  spdlog::error("dlm: node {} was gone and is back without a restart, as fencing is off", node);
  lose_claims("node " + std::to_string(node) +
              ", which was taken for dead, is back, and as fencing is off may hold it as well");
}

}  // namespace lockfs
