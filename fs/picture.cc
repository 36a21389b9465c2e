// SPDX-License-Identifier: MIT
#include "fs/picture.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>

namespace lockfs {
namespace {

using json = nlohmann::ordered_json;

// More than these are counted only.

double seconds(Duration d) {
  return std::chrono::duration<double>(std::chrono::round<std::chrono::milliseconds>(d)).count();
}

// YAML forbids these even between quotes, or reads a line's end or nothing; JSON allows them.
bool forbidden(unsigned code) {
  return (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 || code == 0xfeff ||
         code == 0xfffe || code == 0xffff;
}

// `text` is UTF-8.
std::string without_forbidden(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    unsigned code = length == 1 ? lead : lead & (0x7fU >> length);
    for (size_t k = 1; k < length; ++k) {
      code = code << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fU);
    }
    if (forbidden(code)) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      out.append(text, i, length);
    }
    i += length;
  }
  return out;
}

std::string dumped(const json& value) {
  return without_forbidden(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

// A word that YAML reads as this string without quotes.
bool plain(const std::string& s) {
  if (s.empty() || s.size() > 64 || std::isalpha(static_cast<unsigned char>(s[0])) == 0)
    return false;
  for (const char c : s) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '-') return false;
  }
  for (const char* taken : {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}) {
    if (strcasecmp(s.c_str(), taken) == 0) return false;
  }
  return true;
}

std::string scalar(const json& value) {
  if (value.is_string() && plain(value.get<std::string>())) return value.get<std::string>();
  return dumped(value);
}

void write_yaml(const json& value, size_t indent, std::string& out);

void write_item(const std::string& lead, const json& value, size_t indent, std::string& out) {
  out += lead;
  if (value.is_structured() && value.empty()) {
    out += value.is_array() ? " []\n" : " {}\n";
  } else if (value.is_structured()) {
    out += "\n";
    write_yaml(value, indent + 2, out);
  } else {
    out += " " + scalar(value) + "\n";
  }
}

// A list's item: the first line of its mapping stands behind the dash.
void write_list_item(const json& value, size_t indent, std::string& out) {
  std::string body;
  if (value.is_object() && !value.empty()) {
    write_yaml(value, indent + 2, body);
    body[indent] = '-';
    out += body;
  } else {
    write_item(std::string(indent, ' ') + "-", value, indent, out);
  }
}

void write_yaml(const json& value, size_t indent, std::string& out) {
  if (value.is_array()) {
    for (const json& item : value) write_list_item(item, indent, out);
    return;
  }
  for (const auto& [key, item] : value.items()) {
    write_item(std::string(indent, ' ') + scalar(json(key)) + ":", item, indent, out);
  }
}

json stats_of(const LockStats& stats) {
  const auto mean = [](Duration total, uint64_t n) {
    return n == 0 ? 0.0 : seconds(total / static_cast<int64_t>(n));
  };
  return {
      {"grants", stats.grants},
      {"contended", stats.contended},
      {"timeouts", stats.timeouts},
      {"deadlocks", stats.deadlocks},
      {"lost", stats.lost},
      {"wait",
       {{"mean", mean(stats.wait_total, stats.contended)}, {"max", stats.wait_max.count()}}},
      {"hold", {{"mean", mean(stats.hold_total, stats.holds)}, {"max", stats.hold_max.count()}}}};
}

}  // namespace

std::string share_name(Share share) {
  return share.is_slot() ? "SLOT" : std::string(mode_name(share.mode));
}

std::string to_yaml(const json& value) {
  std::string out;
  write_yaml(value, 0, out);
  return out;
}

Painter::Painter(LockTable& table, Processes& processes, const TimerQueue& timers)
    : table_(table), processes_(processes), timers_(timers), host_(host_name()) {}

std::chrono::nanoseconds Painter::since_epoch(TimePoint when) const {
  using std::chrono::nanoseconds;
  const nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
  const nanoseconds offset = now - Clock::now().time_since_epoch();
  // Less is the noise of two readings.
  if (std::chrono::abs(offset - offset_) > std::chrono::milliseconds(20)) offset_ = offset;
  return offset_ + when.time_since_epoch();
}

std::string Painter::wall(TimePoint when) const { return wall_of(since_epoch(when)); }

std::string wall_of(std::chrono::nanoseconds since_epoch) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch);
  const std::time_t whole = ms.count() / 1000;
  std::tm parts{};
  gmtime_r(&whole, &parts);
  std::array<char, 64> text{};
  const size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text.data() + n, text.size() - n, ".%03dZ", static_cast<int>(ms.count() % 1000));
  return text.data();
}

Painter::Seen& Painter::seen() {
  if (seen_.turn != timers_.now()) seen_ = {timers_.now(), {}, {}};
  return seen_;
}

const ProcessInfo& Painter::describe(pid_t tid) {
  const auto [known, fresh] = seen().described.try_emplace(tid);
  if (fresh) known->second = processes_.describe(tid);
  return known->second;
}

bool Painter::is_gone(pid_t process) {
  const auto [known, fresh] = seen().gone.try_emplace(process);
  if (fresh) known->second = kill(process, 0) != 0 && errno == ESRCH;
  return known->second;
}

const ProcessInfo& Painter::process(const Owner& owner, const Client& client) {
  if (known_.size() >= purge_at_) {
    std::erase_if(known_, [&](const auto& entry) { return table_.find(entry.first) == nullptr; });
    purge_at_ = 2 * known_.size() + 64;
  }
  Known& known = known_[owner.id];
  if (known.pid != client.pid) {
    known = {client.pid, describe(client.pid)};
    if (known.info.process != 0 && !owner.wait) table_.set_process(owner.id, known.info.process);
  }
  return known.info;
}

json Painter::holder(const Owner& owner) {
  const ProcessInfo& info = process(owner, owner.client);
  json out = {{"mode", share_name(owner.held)},
              {"pid", info.process != 0 ? info.process : owner.client.pid},
              {"comm", info.comm},
              {"uid", owner.client.uid},
              {"host", host_},
              {"container", info.container},
              {"since", wall(owner.since)},
              {"held", seconds(timers_.now() - owner.since)}};
  if (owner.held.is_slot()) out["size"] = owner.held.slots;
  if (owner.client.pid != 0 && is_gone(out["pid"])) {
    out["exited"] = true;  // Whoever has its descriptor now holds the lock; often its opener.
    const ProcessInfo& opener = describe(owner.opener);
    if (opener.process != 0) out["opener"] = {{"pid", opener.process}, {"comm", opener.comm}};
  }
  if (owner.closed) out["lingering"] = true;
  const OwnerExtras* extras = owner.extras.get();
  out["expires"] = extras != nullptr && extras->expires ? json(wall(*extras->expires)) : json();
  out["note"] = extras != nullptr ? extras->note : "";
  return out;
}

json Painter::waiter(const Owner& owner) {
  const Wait& wait = *owner.wait;
  const ProcessInfo& info = describe(wait.client.pid);
  return {{"mode", share_name(wait.request.want)},
          {"pid", info.process != 0 ? info.process : wait.client.pid},
          {"comm", info.comm},
          {"uid", wait.client.uid},
          {"host", host_},
          {"container", info.container},
          {"waiting", seconds(timers_.now() - wait.since)},
          {"deadline", wait.deadline ? json(wall(*wait.deadline)) : json()}};
}

json Painter::remote(const RemoteClaim& claim) {
  using std::chrono::nanoseconds;
  const Presence& who = claim.who;
  const auto since = nanoseconds(who.since);
  const nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
  json out = {{"mode", claim.slots ? "SLOT" : mode_name(claim.mode)},
              {"pid", who.pid},
              {"comm", who.comm},
              {"uid", who.uid},
              {"host", who.host.empty() ? "elsewhere" : who.host},
              {"container", who.container}};
  if (claim.waiting) return out;
  out["since"] = who.since != 0 ? json(wall_of(since)) : json();
  out["held"] = who.since != 0 ? json(seconds(now - since)) : json();
  out["expires"] = json();
  out["note"] = who.note;
  if (who.more != 0) out["more"] = who.more;
  return out;
}

json Painter::describe(const Lockspace& space, std::string_view name, const Lock* lock,
                       const Elsewhere& elsewhere) {
  json out = {{"lock", name}, {"lockspace", space.name}, {"backend", space.backend->traits().name}};
  json holders = json::array();
  json waiters = json::array();
  Share strongest;
  size_t count = 0;
  size_t waiting = lock != nullptr ? lock->waiters() : 0;
  uint64_t token = lock != nullptr ? lock->token : 0;
  const auto holds = [&](Share share) {
    if (!strongest.above_null() || share.mode > strongest.mode) strongest = share;
    return ++count <= Painter::kMaxListed;
  };
  for (const Owner* o = lock != nullptr ? lock->first : nullptr; o != nullptr; o = o->next) {
    if (holds(o->held)) holders.push_back(holder(*o));
  }
  if (lock != nullptr && lock->queues) {
    for (const Owner* o : lock->waiting_in_order()) {
      if (waiters.size() < kMaxListed) waiters.push_back(waiter(*o));
    }
  }
  for (const RemoteClaim& claim : elsewhere.lock.claims) {
    token = std::max(token, claim.token);
    if (!claim.waiting) {
      if (holds({claim.mode, claim.slots ? 1U : 0U})) holders.push_back(remote(claim));
    } else if (++waiting; waiters.size() < kMaxListed) {
      waiters.push_back(remote(claim));
    }
  }
  out["mode"] = strongest.above_null() ? share_name(strongest) : "free";
  if (elsewhere.result != LockErrc::kOk) {
    out["elsewhere"] = "unknown: " + make_error_code(elsewhere.result).message();
  }
  out["pinned"] = lock != nullptr && lock->pin.has_value();
  out["token"] = token;
  if (lock != nullptr && lock->lvb_lost) out["value_block"] = "invalid";
  out["holders_total"] = count;
  out["holders"] = holders;
  out["waiters_total"] = waiting;
  out["waiters"] = waiters;
  out["stats"] = stats_of(lock != nullptr ? lock->stats : LockStats{});
  return out;
}

std::string Painter::lock(const Lock& lock, const Owner* self, const Elsewhere& elsewhere,
                          const std::string& error, const std::string& lost) {
  json out = describe(*lock.space, lock.name(), &lock, elsewhere);
  const bool involved = self != nullptr && (self->holding || self->wait || self->lost);
  if (involved || !error.empty()) {
    json mine = {{"mode", self != nullptr && self->holding ? share_name(self->held) : "none"}};
    if (self != nullptr && self->wait) mine["waiting_for"] = share_name(self->wait->request.want);
    mine["token"] = self != nullptr ? self->token : 0;
    const OwnerExtras* extras = self != nullptr ? self->extras.get() : nullptr;
    mine["key"] = extras != nullptr ? extras->key : "";
    mine["error"] = self != nullptr && self->lost
                        ? "the lock was lost: " + lost +
                              "; let go of it (UN, unlock, close) before you ask again"
                        : error;
    out["this"] = mine;
  }
  return to_yaml(out);
}

std::string Painter::as_json(const Lockspace& space, std::string_view name, const Lock* lock,
                             const Elsewhere& elsewhere) {
  return describe(space, name, lock, elsewhere)
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

json Painter::blocker(const Owner& owner) {
  const Client& client = owner.wait ? owner.wait->client : owner.client;
  const ProcessInfo& info = describe(client.pid);
  return {{"pid", info.process != 0 ? info.process : client.pid},
          {"comm", info.comm},
          {"holds", owner.holding ? share_name(owner.held) : "none"},
          {"wants", owner.wait ? share_name(owner.wait->request.want) : "none"}};
}

std::string Painter::wait(const Owner& waiting, const std::vector<const Owner*>& blockers,
                          bool cycle) {
  json entry = {{"lockspace", waiting.lock->space->name}, {"lock", waiting.lock->name()}};
  entry.update(waiter(waiting));
  entry["cycle"] = cycle;
  entry["waits_for"] = json::array();
  for (const Owner* one : blockers) entry["waits_for"].push_back(blocker(*one));
  std::string out;
  write_list_item(entry, 2, out);
  return out;
}

}  // namespace lockfs
