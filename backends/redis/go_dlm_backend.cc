// SPDX-License-Identifier: MIT
#include "backends/redis/go_dlm_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "backends/redis/info.h"
#include "backends/redis/parts.h"

namespace lockfs {
namespace {

constexpr auto kGreetingTime = std::chrono::seconds(3);
constexpr auto kReopen = std::chrono::milliseconds(200);
constexpr Duration kLongestSilence = std::chrono::seconds(2);
// What is lost of a lease before the server can have ended it: a tenth.
constexpr int kMargin = 10;
constexpr size_t kAtOnce = 500;
// The last fencing token, shared by all such locks of the database; ours, go-dlm has none.
constexpr const char* kTokenKey = "lockfs:token";

// KEYS: the lock, the last token. ARGV: value, lease, "1" if it is held: a key that is gone then is
// not made again, for somebody else may have had it. Answers the token, or nothing. Tokens as in
// locks.lua.
constexpr std::string_view kAcquire = R"(
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' and holder.err then return false end  -- Something else has that name.
if holder == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif ARGV[3] == '1' then return false
elseif not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
local time = redis.call('TIME')
local least = time[1] .. string.format('%06d', time[2]) .. '000'
local last = redis.call('GET', KEYS[2]) or '0'
if #least > #last or (#least == #last and least > last) then redis.call('SET', KEYS[2], least) end
redis.call('INCR', KEYS[2])
return redis.call('GET', KEYS[2]))";
constexpr std::string_view kRelease =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
// KEYS: locks. ARGV: the lease, the value of each. Answers for each whether it is still ours.
constexpr std::string_view kRenew = R"(
local answer = {}
for i, key in ipairs(KEYS) do
  answer[i] = redis.pcall('GET', key) == ARGV[i + 1] and redis.call('PEXPIRE', key, ARGV[1]) or 0
end
return answer)";

std::string random_words() {
  std::random_device random;
  std::string out;
  for (int i = 0; i < 4; ++i) out += fmt::format("{:08x}", random());
  return out;
}

}  // namespace

GoDlmBackend::GoDlmBackend(EventLoop& loop, const redis::Url& url)
    : BlindEngine("redis"),
      loop_(loop),
      url_(url),
      identity_(random_words()),
      outlet_(std::make_shared<Outlet>(loop)),
      connection_(loop, *this) {}

GoDlmBackend::~GoDlmBackend() {
  outlet_->close();
  for (const auto& [id, claim] : claims_) {
    if (is_known(claim)) delete_key(claim.key, claim.token);
  }
  loop_.timers.cancel(tick_);
}

std::vector<std::pair<std::string, std::string>> GoDlmBackend::status() const {
  return {{"server", url_.server.words()},
          {"state", up_ ? "up" : trouble()},
          {"claims", std::to_string(claims_.size())}};
}

std::string GoDlmBackend::trouble() const {
  if (up_) return {};
  return logged_.empty() ? "not connected yet" : logged_;
}

void GoDlmBackend::start(ClaimEvents& events) {
  BlindEngine::start(events);
  open();
  tick();
}

// The default lockspace's keys are bare, as a go-dlm program makes them. No two locks have one key.
std::string GoDlmBackend::key_of(std::string_view lockspace, std::string_view name) const {
  if (lockspace != "default") return fmt::format("{}{}/{}", url_.prefix, lockspace, name);
  std::string key = url_.prefix;
  for (const char c : name) {
    key += c == '/' ? "%2F" : c == '%' ? "%25" : std::string(1, c);
  }
  return key;
}

std::string GoDlmBackend::milliseconds_of_lease() const {
  const auto lease = std::chrono::duration_cast<std::chrono::milliseconds>(url_.lease);
  return std::to_string(lease.count());
}

void GoDlmBackend::open() {
  opening_ = true;
  connection_.open(url_.server);
}

void GoDlmBackend::opened(redis::Connection& /*connection*/) {
  opened_at_ = Clock::now();
  const auto checked = [this](const redisReply* answer) {
    if (redis::is_error(answer)) down(std::string(redis::text_of(answer)));
  };
  const redis::Connection::Words login = redis::login_of(url_);
  if (!login.empty()) connection_.send(login, checked);
  if (url_.database != 0) connection_.send({"SELECT", std::to_string(url_.database)}, checked);
  look_at_memory();
  connection_.send({"PING"}, [this](const redisReply* answer) {
    if (answer == nullptr) return;
    if (redis::is_error(answer)) return down(std::string(redis::text_of(answer)));
    opening_ = false;
    up_ = true;
    heard_at_ = Clock::now();
    if (!logged_.empty()) spdlog::info("redis: {} is there again", url_.server.words());
    logged_.clear();
    events_->reach_changed();
    for (const auto& [key, token] : std::exchange(given_up_, {})) delete_key(key, token);
    renew();  // And hears what is still ours.
  });
}

// Its keys have a time to live: any policy but noeviction may take them. A user who may not ask is
// told once, and goes on.
void GoDlmBackend::look_at_memory() {
  looked_at_ = Clock::now();
  if (!may_look_) return;
  if (connection_.unanswered() == 0) heard_at_ = Clock::now();
  connection_.send({"INFO", "memory"}, [this](const redisReply* answer) {
    if (answer == nullptr) return;
    heard_at_ = Clock::now();
    if (!redis::is_error(answer)) {
      const std::string why = redis::eviction(redis::text_of(answer), true);
      return why.empty() ? void() : down(why);
    }
    if (!redis::text_of(answer).starts_with("NOPERM")) return;
    may_look_ = false;
    spdlog::warn(
        "redis: {} does not tell its maxmemory-policy (an ACL without +info): it must be "
        "noeviction, or locks may be thrown away",
        url_.server.words());
  });
}

void GoDlmBackend::pushed(redis::Connection& /*connection*/, const redisReply& /*message*/) {
  down("it says what nobody asked for");
}

void GoDlmBackend::closed(redis::Connection& /*connection*/, const std::string& why) { down(why); }

void GoDlmBackend::down(const std::string& why) {
  if (!up_ && !opening_) return;
  if (up_) down_since_ = loop_.timers.now();
  up_ = false;
  opening_ = false;
  if (logged_ != why) spdlog::warn("redis: {}: {}", url_.server.words(), why);
  logged_ = why;
  events_->reach_changed();
  connection_.close();
  outlet_->after(kReopen, [this] {
    if (!up_ && !opening_) open();
  });
}

void GoDlmBackend::evaluate(std::string_view script, const std::vector<std::string>& keys,
                            const std::vector<std::string>& words, redis::Connection::Done done) {
  redis::Connection::Words command = {"EVAL", std::string(script), std::to_string(keys.size())};
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), words.begin(), words.end());
  if (connection_.unanswered() == 0) heard_at_ = Clock::now();
  connection_.send(command, [this, done = std::move(done)](const redisReply* answer) {
    heard_at_ = Clock::now();
    const bool error = redis::is_error(answer);
    const std::string why(redis::text_of(answer));
    if (done) done(error ? nullptr : answer);
    if (error) down(why);
  });
}

void GoDlmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                           bool now) {
  Claim& claim = claims_[id];
  if (!claim.held) asked(id, lockspace, name);
  claim.key = key_of(lockspace, name);
  claim.asked = mode;
  claim.now = now;
  claim.number = next_ask();
  claim.pending = true;
  claim.since = loop_.timers.now();
  if (claim.token.empty()) claim.token = fmt::format("{}{:012x}", identity_, ++last_token_);
  if (up_) ask(id);
}

void GoDlmBackend::ask(ClaimId id) {
  Claim& claim = claims_.at(id);
  if (claim.asking) return;
  claim.asking = true;
  evaluate(kAcquire, {claim.key, kTokenKey},
           {claim.token, milliseconds_of_lease(), claim.held ? "1" : "0"},
           [this, id, token = claim.token, sent = Clock::now()](const redisReply* answer) {
             heard(id, token, sent, answer);
           });
}

void GoDlmBackend::heard(ClaimId id, const std::string& token, TimePoint sent,
                         const redisReply* answer) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || found->second.token != token) return;
  Claim& claim = found->second;
  claim.asking = false;
  claim.doubtful = answer == nullptr;
  if (claim.doubtful) return;  // It is asked again when the server is there again.
  const std::string_view text = redis::text_of(answer);
  if (answer->type == REDIS_REPLY_NIL) {
    if (claim.held) return lose(id);
    if (claim.pending && claim.now) fail(id, LockErrc::kWouldBlock);
    return;  // Who waits is asked for again by the tick.
  }
  const TimePoint lease_end = sent + url_.lease - url_.lease / kMargin;
  claim.doubtful = lease_end <= Clock::now();
  if (claim.doubtful) return;  // Too late to be used; it is asked for again.
  claim.held = true;
  claim.lease_end = lease_end;
  if (lease_end < tick_at_) look_at(lease_end);
  if (!std::exchange(claim.pending, false)) return;
  const auto number = redis::number_in<uint64_t>(text);
  events_->granted(id, claim.asked, {number, number + 1});
}

void GoDlmBackend::delete_key(const std::string& key, const std::string& token) {
  if (!up_) return given_up_.emplace_back(key, token), void();
  evaluate(kRelease, {key}, {token}, {});
}

void GoDlmBackend::fail(ClaimId id, LockErrc why) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || !std::exchange(found->second.pending, false)) return;
  if (!found->second.held) {
    if (is_known(found->second)) delete_key(found->second.key, found->second.token);
    claims_.erase(found);
  }
  events_->failed(id, why);
}

void GoDlmBackend::lose(ClaimId id) {
  claims_.erase(id);
  events_->lost(id, "redis: its key is gone, or somebody else's");
}

void GoDlmBackend::cancel(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  outlet_->post([this, id, number = found->second.number] {
    const auto still = claims_.find(id);
    if (still != claims_.end() && still->second.number == number) fail(id, LockErrc::kInterrupted);
  });
}

// Without a connection its key is deleted later, or ends with its lease.
void GoDlmBackend::release(ClaimId id) {
  forget(id);
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  const Claim claim = std::move(found->second);
  claims_.erase(found);
  if (is_known(claim)) delete_key(claim.key, claim.token);
}

// What waits is asked for again, what is held is renewed or lost, and who waits for the server is
// told.
void GoDlmBackend::tick() {
  const TimePoint now = Clock::now();
  const Duration silence = std::min<Duration>(url_.lease / 3, kLongestSilence);
  if (opening_ && connection_.is_open() && now - opened_at_ > kGreetingTime) {
    down("it does not answer");
  }
  if (up_ && connection_.unanswered() != 0 && now - heard_at_ > silence) down("no answer");
  std::vector<ClaimId> ids;
  for (const auto& [id, claim] : claims_) ids.push_back(id);
  for (const ClaimId id : ids) {
    const auto found = claims_.find(id);
    if (found == claims_.end()) continue;
    const Claim& claim = found->second;
    if (claim.held && claim.lease_end <= now) {
      claims_.erase(found);
      events_->lost(id, "redis: the lease ran out: " + url_.server.words() + " did not answer");
    } else if (claim.pending && up_) {
      ask(id);
    } else if (claim.pending && now - std::max(claim.since, down_since_) > kPatience) {
      fail(id, LockErrc::kUnreachable);
    }
  }
  if (up_ && now - looked_at_ >= url_.lease) look_at_memory();
  if (up_ && now - renewed_at_ > url_.lease / 3) renew();
  TimePoint next = loop_.timers.now() + kRetry;
  for (const auto& [id, claim] : claims_) {
    if (claim.held) next = std::min(next, claim.lease_end);
  }
  look_at(next);
}

// Not later than a lease ends: its margin may be shorter than kRetry.
void GoDlmBackend::look_at(TimePoint when) {
  loop_.timers.cancel(tick_);
  tick_at_ = when;
  tick_ = loop_.timers.schedule(when, [this] { tick(); });
}

void GoDlmBackend::renew() {
  renewed_at_ = Clock::now();
  std::vector<ClaimId> held;
  for (const auto& [id, claim] : claims_) {
    if (claim.held) held.push_back(id);
  }
  for (size_t first = 0; first < held.size(); first += kAtOnce) {
    std::vector<ClaimId> ids(
        held.begin() + static_cast<ptrdiff_t>(first),
        held.begin() + static_cast<ptrdiff_t>(std::min(held.size(), first + kAtOnce)));
    std::vector<std::string> keys;
    std::vector<std::string> words = {milliseconds_of_lease()};
    for (const ClaimId id : ids) {
      keys.push_back(claims_.at(id).key);
      words.push_back(claims_.at(id).token);
    }
    const auto renewed = [this, ids, sent = renewed_at_](const redisReply* answer) {
      if (answer == nullptr || answer->elements != ids.size()) return;
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto found = claims_.find(ids[i]);
        if (found == claims_.end() || !found->second.held) continue;
        if (answer->element[i]->integer == 1) {
          found->second.lease_end = sent + url_.lease - url_.lease / kMargin;
          continue;
        }
        lose(ids[i]);
      }
    };
    evaluate(kRenew, keys, words, renewed);
  }
}

}  // namespace lockfs
