// SPDX-License-Identifier: MIT
#include "backends/ldlm/ldlm_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>

namespace lockfs {
namespace {

// How many bytes at the start are one printable character of UTF-8; 0: none.
size_t printable(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < size) return 0;
  uint32_t code = first & (0x7FU >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
    code = code << 6U | (byte(i) & 0x3FU);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0xA0, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return code < kLeast.at(size) || code > 0x10FFFF || surrogate ? 0 : size;
}

// What is printable stands for itself, as other clients write it; but for '%' and `also`.
std::string escaped(std::string_view text, char also) {
  std::string out;
  while (!text.empty()) {
    const bool special = text.front() == '%' || text.front() == also;
    const size_t size = special ? 0 : printable(text);
    if (size == 0) out += fmt::format("%{:02X}", static_cast<unsigned char>(text.front()));
    out += text.substr(0, size);
    text.remove_prefix(std::max<size_t>(size, 1));
  }
  return out;
}

// Of the default lockspace bare. No two locks have one name, and each is text.
std::string name_of(std::string_view lockspace, std::string_view name) {
  if (lockspace == "default") return escaped(name, '/');
  return escaped(lockspace, '/') + "/" + escaped(name, '%');
}

}  // namespace

LdlmBackend::LdlmBackend(EventLoop& loop, const ldlm::Url& url)
    : BlindEngine("ldlm"), loop_(loop), url_(url), outlet_(std::make_shared<Outlet>(loop)) {
  traits_.fifo = true;
  traits_.slots = true;
}

// Nothing is unlocked: connections end.
LdlmBackend::~LdlmBackend() {
  outlet_->close();
  for (auto& [id, claim] : claims_) loop_.timers.cancel(claim.patience);
}

std::vector<std::pair<std::string, std::string>> LdlmBackend::status() const {
  return {{"server", url_.server.words()},
          {"state", logged_.empty() ? "up, as far as it was asked" : logged_},
          {"claims", std::to_string(claims_.size())},
          {"connections", std::to_string(sessions_.size())}};
}

void LdlmBackend::acquire(ClaimId id, std::string_view lockspace, std::string_view name, Mode mode,
                          bool now) {
  Claim& claim = claims_[id];
  if (!claim.held) asked(id, lockspace, name);
  claim.name = name_of(lockspace, name);
  claim.mode = mode;
  claim.wanted = claim.size;  // Who has one of several keys is alone with all of them.
  ask(id, claim, now, claim.size);
}

void LdlmBackend::acquire_slots(ClaimId id, std::string_view lockspace, std::string_view name,
                                SlotClaim slots, bool now) {
  Claim& claim = claims_[id];
  if (!claim.held) asked(id, lockspace, name);
  claim.name = name_of(lockspace, name);
  claim.mode = Mode::kCW;
  claim.wanted = slots.count;
  if (claim.keys.empty()) claim.size = slots.size;
  ask(id, claim, now, slots.size);
}

void LdlmBackend::ask(ClaimId id, Claim& claim, bool now, uint32_t size) {
  claim.number = next_ask();
  claim.pending = true;
  claim.had = claim.keys.size();
  if (size != claim.size) return fail(id, LockErrc::kInvalid);
  // Two that have some keys and wait for all of them would wait for ever.
  const bool partial = claim.had != 0 && claim.mode != Mode::kCW;
  claim.waits = !now && !partial;
  claim.refusal = now ? LockErrc::kWouldBlock : LockErrc::kDeadlock;
  wait_for_server(id, claim);
  advance(id);
}

// One step: a key more is asked for, those that are too many are given back, or it is granted.
void LdlmBackend::advance(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || !found->second.pending) return;
  Claim& claim = found->second;
  if (claim.asks != nullptr) return;
  if (has_enough(claim)) return grant(id, claim);
  const auto leaving = leaving_.find(claim.name);
  if (leaving != leaving_.end()) return leaving->second.next.insert(id), void();
  if (Clock::now() < denied_until_) return fail(id, LockErrc::kUnreachable);
  if (addresses_.empty()) return;  // When they are known it goes on.
  claim.asks = &free_session();
  claim.asks->claim = id;
  claim.asks->take(claim.name, claim.size, claim.waits);
}

bool LdlmBackend::has_enough(Claim& claim) {
  while (claim.keys.size() > claim.wanted) {
    give_back(*claim.keys.back());
    claim.keys.pop_back();
  }
  return claim.keys.size() == claim.wanted;
}

void LdlmBackend::grant(ClaimId id, Claim& claim) {
  const auto is_held = [](const Session* key) { return key->is_held(); };
  if (!std::all_of(claim.keys.begin(), claim.keys.end(), is_held)) return;  // It is told next.
  stop_waiting_for_server(claim);
  claim.pending = false;
  claim.held = true;
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  last_token_ = std::max(last_token_ + 1, static_cast<uint64_t>(now));
  events_->granted(id, claim.mode, {last_token_, last_token_ + 1});
}

void LdlmBackend::fail(ClaimId id, LockErrc why) {
  const auto found = claims_.find(id);
  if (found == claims_.end() || !std::exchange(found->second.pending, false)) return;
  Claim& claim = found->second;
  stop_waiting_for_server(claim);
  end_asking(claim);
  claim.wanted = static_cast<uint32_t>(std::min(claim.had, claim.keys.size()));
  if (!claim.held) claim.wanted = 0;
  has_enough(claim);
  if (!claim.held) claims_.erase(found);
  events_->failed(id, why);
}

// All at once: of several keys the others are good, but nobody counts on them any more. Who holds
// is told before anybody else can have one.
void LdlmBackend::lose(ClaimId id, const std::string& why) {
  forget(id);
  Claim claim = std::move(claims_.at(id));
  claims_.erase(id);
  stop_waiting_for_server(claim);
  for (Session* key : claim.keys) will_leave(*key);
  events_->lost(id, "ldlm: " + url_.server.words() + ": " + why);
  end_asking(claim);
  for (Session* key : claim.keys) key->leave();
}

void LdlmBackend::cancel(ClaimId id) {
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  outlet_->post([this, id, number = found->second.number] {
    const auto still = claims_.find(id);
    if (still != claims_.end() && still->second.number == number) fail(id, LockErrc::kInterrupted);
  });
}

void LdlmBackend::release(ClaimId id) {
  forget(id);
  const auto found = claims_.find(id);
  if (found == claims_.end()) return;
  Claim claim = std::move(found->second);
  claims_.erase(found);
  stop_waiting_for_server(claim);
  end_asking(claim);
  claim.wanted = 0;
  has_enough(claim);
}

void LdlmBackend::taken(Session& session) {
  all_is_well();
  Claim& claim = claims_.at(session.claim);
  claim.asks = nullptr;
  claim.keys.push_back(&session);
  if (claim.patience != TimerId::kNone) wait_for_server(session.claim, claim);  // It is there.
  advance(session.claim);
}

void LdlmBackend::refused(Session& session, Session::Refusal why) {
  all_is_well();
  const ClaimId id = session.claim;
  Claim& claim = claims_.at(id);
  claim.asks = nullptr;
  keep(session);
  fail(id, why == Session::Refusal::kSize ? LockErrc::kInvalid : claim.refusal);
}

void LdlmBackend::waits(Session& session) {
  all_is_well();
  stop_waiting_for_server(claims_.at(session.claim));
}

void LdlmBackend::left(Session& session) {
  const std::string name = session.name();
  keep(session);
  has_left(name);
}

void LdlmBackend::found(Session& session) {
  all_is_well();
  keep(session);
}

void LdlmBackend::broken(Session& session, const std::string& why, Session::End how) {
  if (std::erase_if(idle_, [&](const Idle& idle) { return idle.session == &session; }) != 0) {
    return end(session);
  }
  const bool denied = how == Session::End::kDenied;
  if (how == Session::End::kAnswered) {
    all_is_well();
  } else {
    in_trouble(why);
    try_next_address(session);
  }
  if (denied) denied_until_ = Clock::now() + kDenied;
  const ClaimId id = session.claim;
  const std::string name = session.name();
  const auto found = claims_.find(id);
  if (found == claims_.end()) {
    end(session);
    return has_left(name);
  }
  Claim& claim = found->second;
  const bool had = std::erase(claim.keys, &session) != 0;
  if (had && claim.held) {
    will_leave(session);
    lose(id, why);
    end(session);
    return has_left(name);
  }
  if (!had) claim.asks = nullptr;
  end(session);
  if (denied) return fail(id, LockErrc::kUnreachable);
  if (claim.patience == TimerId::kNone) wait_for_server(id, claim);
  outlet_->after(kAgain, [this, id] { advance(id); });
}

void LdlmBackend::wait_for_server(ClaimId id, Claim& claim) {
  stop_waiting_for_server(claim);
  claim.patience = loop_.timers.schedule(Clock::now() + kPatience, [this, id] {
    const auto found = claims_.find(id);
    if (found == claims_.end()) return;
    found->second.patience = TimerId::kNone;
    if (found->second.asks != nullptr) {
      in_trouble("it did not answer");
      try_next_address(*found->second.asks);
    }
    fail(id, LockErrc::kUnreachable);
  });
}

void LdlmBackend::stop_waiting_for_server(Claim& claim) {
  loop_.timers.cancel(std::exchange(claim.patience, TimerId::kNone));
}

void LdlmBackend::start(ClaimEvents& events) {
  BlindEngine::start(events);
  resolve();
}

void LdlmBackend::resolve() {
  if (std::exchange(resolving_, true)) return;
  net::resolve(outlet_, url_.server,
               [this](const std::vector<net::Address>& addresses, const std::string& why) {
                 resolving_ = false;
                 if (!addresses.empty()) addresses_ = addresses;
                 address_ = 0;
                 if (addresses_.empty()) {
                   in_trouble(why);
                   return outlet_->after(kLook, [this] { resolve(); });
                 }
                 std::vector<ClaimId> ids;
                 for (const auto& [id, claim] : claims_) ids.push_back(id);
                 for (const ClaimId id : ids) advance(id);
               });
}

// After the last one its name may have others.
void LdlmBackend::try_next_address(const Session& silent) {
  if (silent.address_number != address_) return;
  if (++address_ >= addresses_.size()) resolve();
  if (address_ >= addresses_.size()) address_ = 0;
}

ldlm::Session& LdlmBackend::free_session() {
  if (!idle_.empty()) {
    Session& session = *idle_.back().session;
    idle_.pop_back();
    return session;
  }
  Session::Events& events = *this;
  auto made = std::make_unique<Session>(loop_, thread_, url_, addresses_.at(address_), events);
  Session& session = *made;
  session.address_number = address_;
  sessions_.emplace(&session, std::move(made));
  return session;
}

// For the next claim that needs one.
void LdlmBackend::keep(Session& session) {
  session.claim = ClaimId::kNone;
  if (idle_.size() >= kMostIdle) return end(session);
  idle_.push_back({&session, Clock::now()});
  outlet_->after(kIdleTime, [this] {
    while (!idle_.empty() && Clock::now() >= idle_.front().since + kIdleTime) {
      end(*idle_.front().session);
      idle_.pop_front();
    }
  });
}

void LdlmBackend::end(Session& session) { sessions_.erase(&session); }

// Whatever the server makes of the request: with its connection it has ended.
void LdlmBackend::end_asking(Claim& claim) {
  if (claim.asks != nullptr) end(*std::exchange(claim.asks, nullptr));
}

void LdlmBackend::give_back(Session& session) {
  will_leave(session);
  session.leave();
}

void LdlmBackend::will_leave(Session& session) {
  session.claim = ClaimId::kNone;
  ++leaving_[session.name()].count;
}

void LdlmBackend::has_left(const std::string& name) {
  const auto found = leaving_.find(name);
  if (found == leaving_.end() || --found->second.count != 0) return;
  const std::set<ClaimId> next = std::move(found->second.next);
  leaving_.erase(found);
  for (const ClaimId id : next) advance(id);
}

std::string LdlmBackend::trouble() const { return logged_; }

void LdlmBackend::in_trouble(const std::string& why) {
  if (logged_ != why) spdlog::warn("ldlm: {}: {}", url_.server.words(), why);
  logged_ = why;
  events_->reach_changed();
  if (std::exchange(looks_, true)) return;
  outlet_->after(kLook, [this] { look(); });
}

// Nobody may ask for a lock for long: that the server is there again is to be known all the same.
void LdlmBackend::look() {
  looks_ = false;
  if (!logged_.empty() && !addresses_.empty()) free_session().look();
}

void LdlmBackend::all_is_well() {
  if (logged_.empty()) return;
  spdlog::info("ldlm: {} is there again", url_.server.words());
  logged_.clear();
  events_->reach_changed();
}

}  // namespace lockfs
