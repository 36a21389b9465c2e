// SPDX-License-Identifier: MIT
#include "backends/elock/elock_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "core/words.h"

namespace lockfs {
namespace {

constexpr int kAcquired = 200;
constexpr int kUnavailable = 409;
constexpr int kForbidden = 403;
constexpr int kNobody = 0;
constexpr auto kGreetingTime = std::chrono::seconds(3);
constexpr auto kReopen = std::chrono::milliseconds(200);
constexpr Duration kLongestSilence = std::chrono::seconds(2);
constexpr Duration kLongestRest = std::chrono::minutes(1);  // A server drops who is silent.
constexpr int kMargin = 10;                                 // A tenth of the timeout is not used.
constexpr size_t kLongestAnswer = 65536;

std::string new_id() {
  std::random_device random;
  return fmt::format("lockfs-{:08x}{:08x}{:08x}", random(), random(), random());
}

// What is no blank or line end stands for itself, as other clients write it; but for '%' and
// `also`.
std::string escaped(std::string_view text, char also) {
  std::string out;
  for (const char c : text) {
    const bool plain = c != ' ' && c != '\r' && c != '\n' && c != '%' && c != also;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

// Keys are words there: whoever names a lock or a lockspace must not say more than one. Of the
// default lockspace bare. No two locks have one key.
std::string key_of(std::string_view lockspace, std::string_view name) {
  if (lockspace == "default") return escaped(name, '/');
  return escaped(lockspace, '/') + "/" + escaped(name, '%');
}

}  // namespace

ElockBackend::ElockBackend(EventLoop& loop, const elock::Url& url)
    : BlindEngine("elock"),
      loop_(loop),
      url_(url),
      id_(new_id()),
      outlet_(std::make_shared<Outlet>(loop)),
      stream_(loop, *this) {}

// Nothing but unlocks are sent in a row, which no server minds.
ElockBackend::~ElockBackend() {
  outlet_->close();
  loop_.timers.cancel(tick_);
  if (!up()) return;
  for (const auto& [id, claim] : claims_) {
    if (is_known(claim)) stream_.send("unlock " + claim.key + "\n");
  }
}

std::vector<std::pair<std::string, std::string>> ElockBackend::status() const {
  Stats out = {{"server", url_.server.words()},
               {"state", up() ? "up" : trouble()},
               {"claims", std::to_string(claims_.size())}};
  out.insert(out.end(), stats_.begin(), stats_.end());
  return out;
}

std::string ElockBackend::trouble() const {
  if (up()) return {};
  return logged_.empty() ? "not connected yet" : logged_;
}

void ElockBackend::start(ClaimEvents& events) {
  BlindEngine::start(events);
  tick();
}

void ElockBackend::opened() {
  since_ = Clock::now();
  send("conn_id " + id_, [this](int code) {
    if (code == kNobody) return;
    // Our own old connection lives there still: it has not noticed yet.
    if (code == kForbidden) return down("it holds our former connection still");
    if (code != kAcquired) return down("it says " + as_said(said_));
    const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(url_.timeout);
    send(fmt::format("set_timeout {}", timeout.count()), [this, sent = Clock::now()](int answer) {
      if (answer == kNobody) return;
      if (answer != kAcquired) return down("it refuses set_timeout: " + as_said(said_));
      if (lease_end_) taken_up_again();
      keeps_from(sent);
      ready();
    });
  });
}

void ElockBackend::ready() {
  stage_ = Stage::kUp;
  beat_at_ = Clock::now() + rest();
  if (!logged_.empty()) spdlog::info("elock: {} is there again", url_.server.words());
  logged_.clear();
  events_->reach_changed();
  const auto given_up = std::exchange(given_up_, {});
  for (const std::string& key : given_up) unlock(key);
  send("stats", [](int /*code*/) {});
  // A server that was restarted knows nothing of what we hold: to lock it again tells.
  // What only waits has its turn later.
  std::vector<ClaimId> ids;
  for (const auto& [id, claim] : claims_) {
    if (claim.held || claim.now) ids.push_back(id);
  }
  for (const ClaimId id : ids) ask(id);
}

// Between two beats.
Duration ElockBackend::rest() const { return std::min(url_.timeout / 3, kLongestRest); }

void ElockBackend::down(const std::string& why) {
  if (up()) {
    fear_former_drops();
    down_since_ = Clock::now();
  }
  stage_ = Stage::kDown;
  since_ = Clock::now();
  stream_.close();
  input_.clear();
  reading_.reset();
  polling_ = false;
  if (logged_ != why) spdlog::warn("elock: {}: {}", url_.server.words(), why);
  logged_ = why;
  events_->reach_changed();
  for (const Command& command : std::exchange(commands_, {})) command.done(kNobody);
}

void ElockBackend::send(const std::string& line, Done done) {
  commands_.push_back({line, std::move(done)});
  if (commands_.size() == 1) send_next();
}

void ElockBackend::send_next() {
  sent_at_ = Clock::now();
  stream_.send(commands_.front().line + "\n");
}

void ElockBackend::received(std::string_view bytes) {
  input_ += bytes;
  for (;;) {
    const size_t end = input_.find('\n');
    if (end == std::string::npos) break;
    said_ = input_.substr(0, end);
    input_.erase(0, end + 1);
    if (said_.ends_with('\r')) said_.pop_back();
    int code = kNobody;
    std::from_chars(said_.data(), said_.data() + said_.size(), code);
    const bool is_stats = !commands_.empty() && commands_.front().line == "stats";
    if (reading_) {
      code = read_stat(said_);
    } else if (is_stats && code == kAcquired) {
      reading_.emplace();
    }
    if (reading_) continue;
    if (commands_.empty() || code < 100 || code > 999) return down("it does not speak elock");
    if (up()) keeps_from(sent_at_);
    if (commands_.front().poll) polling_ = false;
    const Done done = std::move(commands_.front().done);
    commands_.pop_front();
    const bool more = !commands_.empty();
    done(code);
    if (!stream_.is_open()) return;
    if (more && !commands_.empty()) send_next();
    poll();
  }
  if (input_.size() > kLongestAnswer) down("it does not speak elock");
}

// "STAT clients 7", and "END" after them. An endless answer is none.
int ElockBackend::read_stat(std::string_view line) {
  constexpr std::string_view kStat = "STAT ";
  constexpr size_t kMost = 100;
  if (line.starts_with(kStat) && reading_->size() < kMost) {
    line.remove_prefix(kStat.size());
    const size_t blank = std::min(line.find(' '), line.size());
    reading_->emplace_back("server_" + std::string(line.substr(0, blank)),
                           line.substr(std::min(blank + 1, line.size())));
    return kNobody;
  }
  const bool whole = line == "END";
  if (whole) {
    stats_ = std::move(*reading_);
    resumes_ = std::any_of(stats_.begin(), stats_.end(), [](const auto& stat) {
      return stat.first == "server_resumes" && stat.second == "1";
    });
  }
  reading_.reset();
  return whole ? kAcquired : kNobody;
}

void ElockBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                           bool now) {
  Claim& claim = claims_[id];
  if (!claim.held) asked(id, lockspace, name);
  claim.key = key_of(lockspace, name);
  claim.mode = mode;
  claim.now = now;
  claim.number = next_ask();
  claim.pending = true;
  claim.since = loop_.timers.now();
  if (now || claim.held) return ask(id);
  if (up() && !std::exchange(claim.turn, true)) fresh_.push_back(id);
  poll();
}

void ElockBackend::ask(ClaimId id) {
  const auto found = claims_.find(id);
  if (!up() || found == claims_.end()) return;
  Claim& claim = found->second;
  if (claim.asked) return;
  claim.asked = true;
  send("lock " + claim.key, [this, id, key = claim.key](int code) { heard(id, key, code); });
}

// One at a time, at the end of the queue: nothing has more than one of these before it, and however
// much else there is to be said, each has its turn. So have those who wait and those who come anew.
void ElockBackend::poll() {
  while (up() && !polling_ && !(fresh_.empty() && polls_.empty())) {
    const bool again = fresh_.empty() || (!polls_.empty() && !polled_again_);
    std::deque<ClaimId>& turns = again ? polls_ : fresh_;
    polled_again_ = again;
    const auto found = claims_.find(turns.front());
    turns.pop_front();
    if (found == claims_.end()) continue;
    found->second.turn = false;
    if (!found->second.pending || found->second.asked) continue;
    polling_ = true;
    ask(found->first);
    commands_.back().poll = true;
  }
}

void ElockBackend::heard(ClaimId id, const std::string& key, int code) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;  // Released meanwhile; that unlocks it.
  Claim& claim = found->second;
  claim.asked = false;
  claim.doubtful = code == kNobody;  // Asked again, it says so.
  if (claim.doubtful) return;
  if (code == kAcquired && lease_end_ && Clock::now() < *lease_end_) {
    claim.held = true;
    if (!std::exchange(claim.pending, false)) return;
    const auto time = std::chrono::system_clock::now().time_since_epoch();
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
    last_token_ = std::max(last_token_ + 1, static_cast<uint64_t>(now));
    return events_->granted(id, claim.mode, {last_token_, last_token_ + 1});
  }
  if (code == kAcquired && claim.held) return lose_all();
  if (code == kAcquired) return unlock(key);
  if (claim.held) {
    claims_.erase(found);
    return events_->lost(
        id, "elock: " + url_.server.words() + " was restarted, it is not ours any more");
  }
  if (!claim.pending) return;
  if (said_ == elock::kTooManyLocks) return fail(id, LockErrc::kLimit);
  if (code != kUnavailable) return fail(id, LockErrc::kUnreachable);
  if (claim.now) fail(id, LockErrc::kWouldBlock);
}

// Whatever the server has of it: without a connection later.
void ElockBackend::unlock(const std::string& key) {
  if (!up()) return given_up_.insert(key), void();
  send("unlock " + key, [this, key](int code) {
    if (code == kNobody) given_up_.insert(key);
  });
}

void ElockBackend::fail(ClaimId id, LockErrc why) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || !std::exchange(found->second.pending, false)) return;
  if (!found->second.held) {
    const std::string key = found->second.key;
    const bool known = is_known(found->second);
    claims_.erase(found);
    if (known) unlock(key);
  }
  events_->failed(id, why);
}

void ElockBackend::cancel(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  outlet_->post([this, id, number = found->second.number] {
    const auto still = claims_.find(id);
    if (still != claims_.end() && still->second.number == number) fail(id, LockErrc::kInterrupted);
  });
}

void ElockBackend::release(ClaimId id) {
  forget(id);
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  const Claim claim = std::move(found->second);
  claims_.erase(found);
  if (is_known(claim)) unlock(claim.key);
}

// What was sent then was answered: the session was there, and stays for its timeout at least.
void ElockBackend::keeps_from(TimePoint sent) {
  proven_ = sent;
  feared_ = false;
  lease_end_ = sent + url_.timeout - url_.timeout / kMargin;
}

void ElockBackend::taken_up_again() {
  const TimePoint now = Clock::now();
  while (!drops_.empty() && drops_.front().until + 2 * url_.timeout < now) drops_.pop_front();
  drops_.push_back({proven_, now});
}

// At the end of a connection the original sets a timer, and when that is up it frees what the
// session holds if it has no connection just then: whether or not it had one meanwhile.
void ElockBackend::fear_former_drops() {
  if (resumes_ || !lease_end_) return;
  const Duration margin = url_.timeout / kMargin;
  for (const Drop& drop : drops_) {
    const bool may_come = drop.until + url_.timeout + margin >= proven_;
    const TimePoint end = drop.since + url_.timeout - margin;
    if (!may_come || end >= *lease_end_) continue;
    lease_end_ = end;
    feared_ = true;
  }
}

// The server ends the session by its own timeout, later than we do.
void ElockBackend::lose_all() {
  const std::string why = feared_ ? "the connection ended twice within its timeout, it may be free"
                                  : "it did not answer before its timeout";
  lease_end_.reset();
  drops_.clear();
  id_ = new_id();
  down(why);
  given_up_.clear();
  std::vector<ClaimId> held;
  for (const auto& [id, claim] : claims_) {
    if (claim.held) held.push_back(id);
  }
  for (const ClaimId id : held) {
    if (claims_.erase(id) != 0) events_->lost(id, "elock: " + url_.server.words() + ": " + why);
  }
}

void ElockBackend::open_again(TimePoint now) {
  const Duration time = now - since_;
  if (stream_.is_open() && time > kGreetingTime) {
    down("it does not answer");
  } else if (stage_ == Stage::kDown && time > kReopen) {
    stage_ = Stage::kOpening;
    stream_.open(url_.server);
  }
}

void ElockBackend::tick() {
  tick_ = loop_.timers.schedule(loop_.timers.now() + kRetry, [this] { tick(); });
  const TimePoint now = Clock::now();
  if (lease_end_ && now >= *lease_end_) lose_all();
  const Duration silence = std::min<Duration>(url_.timeout / 3, kLongestSilence);
  if (up() && !commands_.empty() && now - sent_at_ > silence) down("no answer");
  if (!up()) open_again(now);
  std::vector<ClaimId> too_long;
  for (auto& [id, claim] : claims_) {
    if (!claim.pending) continue;
    const TimePoint since = std::max(claim.since, down_since_);
    if (!up() && now - since > kPatience) too_long.push_back(id);
    if (up() && !claim.asked && !std::exchange(claim.turn, true)) polls_.push_back(id);
  }
  for (const ClaimId id : too_long) fail(id, LockErrc::kUnreachable);
  poll();
  if (!up() || now < beat_at_) return;
  beat_at_ = now + rest();
  send("stats", [](int /*code*/) {});
}

}  // namespace lockfs
