// SPDX-License-Identifier: MIT
#include "backends/redis/node.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "backends/key_values.h"
#include "backends/redis/info.h"
#include "backends/redis/locks_lua.h"
#include "core/processes.h"
#include "core/words.h"

namespace lockfs::redis {
namespace {

using std::chrono::milliseconds;

constexpr auto kGreetingTime = std::chrono::seconds(3);
constexpr Duration kLongestSilence = std::chrono::seconds(2);
constexpr Duration kFirstBackoff = milliseconds(50);
constexpr Duration kLongestBackoff = std::chrono::seconds(2);
constexpr int kChannels = 2;

std::string new_id() {
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32U | random();
  std::string host = host_name();
  std::replace_if(
      host.begin(), host.end(), [](unsigned char c) { return isalnum(c) == 0; }, '-');
  return fmt::format("{}.{}.{:016x}", host, getpid(), number);
}

// "12.3 s"
std::string seconds(Duration time) {
  return fmt::format("{:.1f} s", std::chrono::duration<double>(time).count());
}

}  // namespace

Node::Node(EventLoop& loop, Url url, NodeEvents& events)
    : loop_(loop),
      url_(std::move(url)),
      events_(events),
      commands_(loop, *this),
      subscription_(loop, *this),
      id_(new_id()) {}

Node::~Node() {
  if (up()) evaluate({"bye", id_}, [](const redisReply* /*answer*/) {});
  for (const TimerId timer : {lease_timer_, tick_, retry_}) loop_.timers.cancel(timer);
}

void Node::start() {
  open();
  tick();
}

void Node::open() {
  retry_ = TimerId::kNone;
  stage_ = Stage::kOpening;
  channels_ = 0;
  script_.clear();
  run_.clear();
  commands_.open(url_.server);
  subscription_.open(url_.server);
}

void Node::down(const std::string& why) {
  if (stage_ == Stage::kDown) return;
  const bool was_up = up();
  stage_ = Stage::kDown;
  trouble_ = why;
  refused_ = false;
  beating_ = false;
  grace_.clear();
  early_.clear();
  if (logged_ != why) spdlog::warn("redis: {}: {}", url_.server.words(), why);
  logged_ = why;
  commands_.close();
  subscription_.close();
  seen_.clear();
  const bool at_once = was_up && !ailing_;
  backoff_ = at_once ? kFirstBackoff : std::clamp(backoff_ * 2, kFirstBackoff, kLongestBackoff);
  // Not all mounts at once.
  const Duration jitter = backoff_ / 4 * (getpid() % 5) / 4;
  retry_ = loop_.timers.schedule(Clock::now() + backoff_ + jitter, [this] { open(); });
  if (was_up) events_.went_down(why);
}

void Node::closed(Connection& /*connection*/, const std::string& why) { down(why); }

// Some reasons do not pass by themselves; a server that loads its data is there in a moment.
void Node::refuse(std::string_view words) {
  constexpr std::array kLasting = {"NOAUTH", "WRONGPASS", "NOPERM",
                                   "ERR ",   "INFO ",     "its maxmemory-policy"};
  const bool lasting = words.find("max number of clients") == std::string_view::npos &&
                       std::any_of(kLasting.begin(), kLasting.end(),
                                   [&](const char* start) { return words.starts_with(start); });
  down(std::string(words));
  refused_ = lasting;
}

// A command of the beginning, whose refusal ends it.
void Node::expect(Connection& connection, const Connection::Words& command,
                  std::function<void(const redisReply&)> then) {
  connection.send(command, [this, then = std::move(then)](const redisReply* answer) {
    if (answer == nullptr || stage_ != Stage::kOpening) return;
    if (is_error(answer)) return refuse(text_of(answer));
    if (then) then(*answer);
  });
}

void Node::log_in(Connection& connection) {
  const Connection::Words login = login_of(url_);
  if (!login.empty()) expect(connection, login, {});
}

void Node::opened(Connection& connection) {
  since_ = Clock::now();
  log_in(connection);
  if (&connection == &subscription_) {
    // Its answers are messages, as all that follows on this connection.
    expect(connection, {"PING"}, [this](const redisReply& /*pong*/) {
      const std::string base = url_.prefix + ":";
      subscription_.send(
          {"SUBSCRIBE", base + "to:" + id_, base + std::to_string(url_.database) + ":shown"},
          [this](const redisReply* answer) {
            if (answer != nullptr) pushed(subscription_, *answer);
          });
    });
    return;
  }
  if (url_.database != 0) expect(connection, {"SELECT", std::to_string(url_.database)}, {});
  expect(connection, {"SCRIPT", "LOAD", std::string(kLocksLua)}, [this](const redisReply& sha) {
    script_ = text_of(&sha);
    prepare();
  });
  expect(connection, {"INFO", "memory"}, [this](const redisReply& info) { said_memory(info); });
  expect(connection, {"INFO", "server"}, [this](const redisReply& info) { said(info); });
}

void Node::said_memory(const redisReply& info) {
  const std::string why = eviction(text_of(&info), false);
  if (!why.empty()) refuse(why);
}

void Node::said(const redisReply& info) {
  const std::string_view text = text_of(&info);
  run_ = info_value(text, "run_id");
  const auto uptime =
      std::chrono::seconds(number_in<int64_t>(info_value(text, "uptime_in_seconds")));
  // A second is what it may be rounded by.
  young_ = uptime <= url_.lease + std::chrono::seconds(1);
  if (run_.empty()) return refuse("INFO server does not tell its run_id");
  prepare();
}

// Once both connections are ready, so that no message is missed.
void Node::prepare() {
  if (stage_ != Stage::kOpening || channels_ < kChannels || script_.empty() || run_.empty()) return;
  hello();
}

void Node::pushed(Connection& /*connection*/, const redisReply& message) {
  if (is_error(&message)) return refuse(text_of(&message));
  const std::vector<std::string_view> parts = texts_of(&message);
  if (parts.size() != 3) return;
  if (parts[0] == "subscribe") {
    if (++channels_ == kChannels) prepare();
    return;
  }
  told_at_ = Clock::now();
  if (parts[1].ends_with(":shown")) return events_.shown(split_parts(parts[2]));
  if (!up()) return early_.emplace_back(parts[2]), void();
  events_.told(split_parts(parts[2]));
}

void Node::evaluate(const Connection::Words& verb, Connection::Done done) {
  Connection::Words command = {"EVALSHA",
                               script_,
                               "0",
                               url_.prefix,
                               id_,
                               std::to_string(link_),
                               std::to_string(url_.database)};
  command.insert(command.end(), verb.begin(), verb.end());
  send(command, std::move(done));
}

void Node::send(const Connection::Words& command, Connection::Done done) {
  if (commands_.unanswered() == 0) asked_at_ = Clock::now();
  commands_.send(command, [this, done = std::move(done)](const redisReply* answer) {
    asked_at_ = Clock::now();
    done(answer);
  });
}

void Node::hello() {
  ++link_;
  Presence who;
  who.host = host_name();
  who.pid = getpid();
  const auto lease = std::chrono::duration_cast<milliseconds>(url_.lease).count();
  const TimePoint sent = Clock::now();
  stage_ = Stage::kGreeting;
  evaluate({"hello", run_, young_ ? "1" : "0", std::to_string(lease), presence_words(who),
            holds_lease() ? "1" : "0"},
           [this, sent](const redisReply* answer) {
             if (answer == nullptr) return;
             if (is_error(answer)) return refuse(text_of(answer));
             greeted(*answer, sent);
           });
}

void Node::greeted(const redisReply& answer, TimePoint sent) {
  const Answer parts = texts_of(&answer);
  if (parts.size() < 2) return refuse("it answers what lockfs does not understand");
  stage_ = Stage::kUp;
  since_ = Clock::now();
  trouble_.clear();
  if (!ailing_) settle();
  beat_at_ = Clock::now();  // The others count from when they see it.
  told_at_ = Clock::now();
  looked_at_ = sent;
  set_grace(parts[1]);
  // After a loss of data what we hold is ours only when it was resumed: a beat follows that.
  if (!grace() || !lease_end_) renew(sent);
  if (!former_.empty()) call({"bye", std::exchange(former_, {})}, {});
  std::vector<Record> records;
  for (size_t i = 2; i + 4 < parts.size(); i += 5) {
    records.push_back({std::string(parts[i]), mode_in(parts[i + 1]), mode_in(parts[i + 2]),
                       number_in<uint64_t>(parts[i + 3]), number_in<uint32_t>(parts[i + 4])});
  }
  events_.came_up(std::move(records));
  for (const std::string& message : std::exchange(early_, {})) events_.told(split_parts(message));
}

// It is there, and will be for a while.
void Node::settle() {
  backoff_ = Duration::zero();
  if (!logged_.empty()) spdlog::info("redis: {} is there again", url_.server.words());
  logged_.clear();
}

void Node::call(const Connection::Words& verb, Done done, std::function<void()> refused) {
  if (!up()) return done ? done({}) : void();
  evaluate(verb,
           [this, done = std::move(done), refused = std::move(refused)](const redisReply* answer) {
             if (is_error(answer)) {
               // What it did not do is repaired when we come again.
               ailing_ = true;
               if (done && !refused) done({});
               down(std::string(text_of(answer)));
               return refused ? refused() : void();
             }
             const Answer parts = texts_of(answer);
             const bool stale = !parts.empty() && parts.front() == "stale";
             if (done) done(stale ? Answer() : parts);
             if (stale) down("others took this mount for dead");
           });
}

// So often is looked whether something is late.
void Node::tick() {
  const Duration pause = std::clamp<Duration>(url_.lease / 10, milliseconds(50), milliseconds(500));
  tick_ = loop_.timers.schedule(Clock::now() + pause, [this] { tick(); });
  const TimePoint now = Clock::now();
  const Duration silence = std::min<Duration>(url_.lease / 3, kLongestSilence);
  if (!up()) {
    const bool connected = commands_.is_open() && subscription_.is_open();
    if (connected && now - since_ > kGreetingTime) down("it does not answer");
    return;
  }
  if (commands_.unanswered() != 0 && now - asked_at_ > silence) {
    return down("no answer for " + seconds(now - asked_at_));
  }
  if (now - told_at_ > url_.lease * 2 / 3 + silence) return down("its messages do not arrive");
  const bool suspects = std::any_of(seen_.begin(), seen_.end(), [now](const auto& seen) {
    return now - seen.second.since > seen.second.lease;
  });
  if (!beating_ && (now >= beat_at_ || suspects || grace())) beat();
}

void Node::beat() {
  beating_ = true;
  const TimePoint sent = Clock::now();
  beat_at_ = sent + url_.lease / 3;
  const auto over = milliseconds(number_in<int64_t>(grace_.substr(grace_.find(' ') + 1)));
  Connection::Words verb = {"beat", grace() && sent - grace_since_ > over ? grace_ : ""};
  for (const auto& [node, seen] : seen_) {
    if (sent - seen.since <= seen.lease) continue;
    spdlog::warn("redis: {} has not been heard of for {}: what it held is free", node,
                 seconds(sent - seen.since));
    verb.push_back(node);
    verb.push_back(seen.beat);
  }
  call(verb, [this, sent](const Answer& answer) {
    beating_ = false;
    if (answer.size() >= 2) beaten(answer, sent);
  });
  if (sent - looked_at_ >= url_.lease) look_at_memory();
}

// Its policy can be changed while it runs.
void Node::look_at_memory() {
  looked_at_ = Clock::now();
  send({"INFO", "memory"}, [this](const redisReply* answer) {
    if (answer != nullptr && up()) said_memory(*answer);
  });
}

void Node::beaten(const Answer& answer, TimePoint sent) {
  renew(sent);
  std::map<std::string, Seen> before = std::move(seen_);
  seen_.clear();
  for (size_t i = 2; i + 2 < answer.size(); i += 3) {
    const std::string node(answer[i]);
    const Seen now = {std::string(answer[i + 1]), milliseconds(number_in<int64_t>(answer[i + 2])),
                      Clock::now()};
    const auto known = before.find(node);
    const bool same = known != before.end() && known->second.beat == now.beat;
    seen_[node] = same ? known->second : now;
  }
  set_grace(answer[1]);
  if (ailing_ && Clock::now() - since_ >= kLongestBackoff) {
    ailing_ = false;
    settle();
  }
  if (!grace()) events_.grace_ended();  // It may have come and gone between two beats.
}

void Node::set_grace(std::string_view grace) {
  if (grace == grace_) return;
  grace_ = grace;
  grace_since_ = Clock::now();
  if (!grace_.empty() && std::exchange(logged_grace_, grace_) != grace_) {
    spdlog::info(
        "redis: the server is new or was restarted: nothing is granted for a lease, so that "
        "all who hold locks are heard first");
  }
}

void Node::renew(TimePoint sent) {
  lease_end_ = sent + url_.lease - url_.lease / kMargin;
  loop_.timers.cancel(lease_timer_);
  lease_timer_ = loop_.timers.schedule(*lease_end_, [this] { expire(); });
}

// Others may bury this node from now on. It comes back as another one.
void Node::expire() {
  lease_timer_ = TimerId::kNone;
  lease_end_.reset();
  const std::string why = fmt::format("redis: the lease ran out: {} did not answer for {}",
                                      url_.server.words(), seconds(url_.lease));
  former_ = std::exchange(id_, new_id());
  down("no answer for a whole lease");
  events_.expired(why);
}

}  // namespace lockfs::redis
