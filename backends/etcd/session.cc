// SPDX-License-Identifier: MIT
#include "backends/etcd/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace lockfs::etcd {
namespace {

using std::chrono::milliseconds;

constexpr Duration kOpenTime = std::chrono::seconds(3);
constexpr Duration kLongestSilence = std::chrono::seconds(2);
constexpr Duration kLongestBeat = std::chrono::seconds(3);
// Of a short lease: a beat after a sixth, a third of silence, then a fifth for each next member. Of
// its nine tenths that leaves time for two, from four seconds on.
constexpr int kBeats = 6;
constexpr int kOpenings = 5;
constexpr Duration kShortestOpening = std::chrono::seconds(1);
constexpr Duration kFirstBackoff = milliseconds(50);
constexpr Duration kLongestBackoff = std::chrono::seconds(2);
constexpr auto kFarewell = std::chrono::seconds(1);
constexpr const char* kRevoke = "/etcdserverpb.Lease/LeaseRevoke";

std::string words_of(const grpc::Status& status) {
  return status.error_message().empty() ? "it does not answer" : status.error_message();
}

}  // namespace

Session::Session(EventLoop& loop, Url url, SessionEvents& events)
    : loop_(loop), url_(std::move(url)), events_(events), outlet_(std::make_shared<Outlet>(loop)) {}

Session::~Session() {
  outlet_->close();
  for (const TimerId timer : {lease_timer_, tick_, retry_}) loop_.timers.cancel(timer);
  if (!up() || lease_ == 0) return;
  wire::LeaseRevokeRequest request;
  request.set_id(lease_);
  rpc_->farewell<wire::LeaseRevokeRequest, wire::LeaseRevokeResponse>(kRevoke, request, kFarewell);
}

void Session::start() {
  open();
  tick();
}

std::string Session::owner() const { return fmt::format("{:x}", static_cast<uint64_t>(lease_)); }

void Session::open() {
  retry_ = TimerId::kNone;
  stage_ = Stage::kOpening;
  if (!addresses_.empty()) return connect();
  net::resolve(
      outlet_, url_.members[member_ % url_.members.size()],
      [this, opens = ++opens_](const std::vector<net::Address>& addresses, const std::string& why) {
        if (opens != opens_ || stage_ != Stage::kOpening) return;
        addresses_.assign(addresses.begin(), addresses.end());
        addresses.empty() ? down(why) : connect();
      });
}

void Session::connect() {
  open_until_ = Clock::now() + open_time();
  rpc_ = std::make_unique<net::Rpc>(loop_, thread_, url_.members[member_ % url_.members.size()],
                                    addresses_.front());
  addresses_.pop_front();
  // A member that has no leader says so, rather than let us wait.
  rpc_->add_metadata("hasleader", "true");
  url_.user.empty() ? take_lease() : log_in();
}

void Session::down(const std::string& why) {
  if (stage_ == Stage::kDown) return;
  const bool was_up = up();
  stage_ = Stage::kDown;
  trouble_ = why;
  refused_ = false;
  refusal_.clear();
  beat_sent_.reset();
  keep_alive_.reset();
  watch_.reset();
  watches_.clear();
  rpc_.reset();
  const std::string at = member();
  if (was_up) addresses_.clear();
  if (addresses_.empty()) ++member_;
  if (logged_ != why) spdlog::warn("etcd: {}: {}", at, why);
  logged_ = why;
  // The other members at once, then again, slower and slower.
  const bool again = addresses_.empty() && member_ % url_.members.size() == 0;
  if (was_up || backoff_ == Duration::zero()) backoff_ = kFirstBackoff;
  const Duration jitter = backoff_ / 4 * (getpid() % 5) / 4;
  retry_ = loop_.timers.schedule(Clock::now() + backoff_ + jitter, [this] { open(); });
  if (again) backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  if (was_up) events_.went_down(why);
}

void Session::opening_failed(const grpc::Status& status) {
  const grpc::StatusCode code = status.error_code();
  const bool opening = stage_ == Stage::kOpening;
  down(words_of(status));
  refused_ = opening && (code == grpc::INVALID_ARGUMENT || code == grpc::PERMISSION_DENIED ||
                         code == grpc::UNAUTHENTICATED || code == grpc::FAILED_PRECONDITION);
}

void Session::log_in() {
  wire::AuthenticateRequest request;
  request.set_name(url_.user);
  request.set_password(url_.password);
  rpc_->call<wire::AuthenticateRequest, wire::AuthenticateResponse>(
      "/etcdserverpb.Auth/Authenticate", request,
      [this](const grpc::Status& status, const wire::AuthenticateResponse& answer) {
        if (!status.ok()) return opening_failed(status);
        rpc_->add_metadata("token", answer.token());
        take_lease();
      });
}

void Session::take_lease() {
  if (lease_ != 0) return resume();
  wire::LeaseGrantRequest request;
  request.set_ttl(std::chrono::duration_cast<std::chrono::seconds>(url_.lease).count());
  rpc_->call<wire::LeaseGrantRequest, wire::LeaseGrantResponse>(
      "/etcdserverpb.Lease/LeaseGrant", request,
      [this, sent = Clock::now()](const grpc::Status& status,
                                  const wire::LeaseGrantResponse& answer) {
        if (!status.ok()) return opening_failed(status);
        if (answer.id() == 0 || answer.ttl() <= 0) return down("it grants no lease");
        lease_ = answer.id();
        ttl_ = std::chrono::seconds(answer.ttl());
        renew(sent);
        resume();
      });
}

// Up is who has heard that the lease is there.
void Session::resume() {
  const auto ended = [this](const grpc::Status& status) { down(words_of(status)); };
  keep_alive_ = rpc_->stream<wire::LeaseKeepAliveRequest, wire::LeaseKeepAliveResponse>(
      "/etcdserverpb.Lease/LeaseKeepAlive",
      [this](const wire::LeaseKeepAliveResponse& answer) { beaten(answer); }, ended);
  watch_ = rpc_->stream<wire::WatchRequest, wire::WatchResponse>(
      "/etcdserverpb.Watch/Watch",
      [this](const wire::WatchResponse& response) {
        if (!watches_.contains(response.watch_id())) return;
        if (response.canceled()) return down("a watch ended: " + response.cancel_reason());
        if (up()) events_.watched(response);
      },
      ended);
  beat();
}

void Session::ready() {
  stage_ = Stage::kUp;
  trouble_.clear();
  backoff_ = Duration::zero();
  if (!logged_.empty()) spdlog::info("etcd: {} is there again", url_.words());
  logged_.clear();
  for (const int64_t lease : std::exchange(former_, {})) revoke(lease);
  events_.came_up();
}

void Session::revoke(int64_t lease) {
  wire::LeaseRevokeRequest request;
  request.set_id(lease);
  // It may have ended by itself.
  rpc_->call<wire::LeaseRevokeRequest, wire::LeaseRevokeResponse>(
      kRevoke, request,
      [](const grpc::Status& /*status*/, const wire::LeaseRevokeResponse& /*answer*/) {});
}

// With a read that needs a quorum.
void Session::beat() {
  beat_sent_ = Clock::now();
  beat_at_ = *beat_sent_ + std::min<Duration>(ttl_ / kBeats, kLongestBeat);
  beat_answers_ = 0;
  wire::LeaseKeepAliveRequest request;
  request.set_id(lease_);
  keep_alive_->write(request);
  wire::RangeRequest read;
  read.set_key(url_.prefix + ".lockfs/beat");
  rpc_->call<wire::RangeRequest, wire::RangeResponse>(
      "/etcdserverpb.KV/Range", read,
      [this](const grpc::Status& status, const wire::RangeResponse& /*answer*/) {
        if (!status.ok()) return opening_failed(status);
        beat_done();
      });
}

void Session::beaten(const wire::LeaseKeepAliveResponse& answer) {
  if (answer.id() != lease_ || !beat_sent_) return;
  if (answer.ttl() <= 0) return expire("etcd: " + url_.words() + " has ended the lease");
  beat_done();
}

void Session::beat_done() {
  if (++beat_answers_ < 2 || !beat_sent_) return;
  renew(*beat_sent_);
  beat_sent_.reset();
  if (stage_ == Stage::kOpening) ready();
}

void Session::renew(TimePoint sent) {
  lease_end_ = sent + ttl_ - ttl_ / kMargin;
  loop_.timers.cancel(lease_timer_);
  lease_timer_ = loop_.timers.schedule(*lease_end_, [this] {
    lease_timer_ = TimerId::kNone;
    expire(fmt::format("etcd: the lease ran out: {} did not answer for {} s", url_.words(),
                       std::chrono::duration_cast<std::chrono::seconds>(ttl_).count()));
  });
}

// The next lease is another one, with keys of its own.
void Session::expire(const std::string& why) {
  loop_.timers.cancel(std::exchange(lease_timer_, TimerId::kNone));
  lease_end_.reset();
  former_.push_back(std::exchange(lease_, 0));
  down("the lease has ended");
  events_.expired(why);
}

void Session::watch(int64_t number, const std::string& key, const std::string& end,
                    int64_t revision) {
  watches_.insert(number);
  wire::WatchRequest request;
  wire::WatchCreateRequest& create = *request.mutable_create_request();
  create.set_watch_id(number);
  create.set_key(key);
  create.set_range_end(end);
  create.set_start_revision(revision);
  watch_->write(request);
}

void Session::unwatch(int64_t number) {
  if (watches_.erase(number) == 0) return;
  wire::WatchRequest request;
  request.mutable_cancel_request()->set_watch_id(number);
  watch_->write(request);
}

// Of this call alone? Else the connection ends, or the lease.
bool Session::is_refusal(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::RESOURCE_EXHAUSTED:
    case grpc::PERMISSION_DENIED:
      if (logged_ != status.error_message()) {
        spdlog::warn("etcd: {}: {}", url_.words(), words_of(status));
      }
      logged_ = status.error_message();
      refusal_ = words_of(status);
      return true;
    case grpc::NOT_FOUND:
      if (status.error_message().find("lease not found") != std::string::npos) {
        expire("etcd: " + url_.words() + " has ended the lease");
        return false;
      }
      [[fallthrough]];
    default: down(words_of(status)); return false;
  }
}

// A full cluster still deletes.
bool Session::has_written(const wire::TxnResponse& answer) {
  return std::any_of(answer.responses().begin(), answer.responses().end(),
                     [](const wire::ResponseOp& one) { return one.has_response_put(); });
}

// While a lease is at stake and others can be asked, a member that hangs must leave time for them:
// etcd 3.4 holds reads for 5 s and more when the leader that was to confirm one has gone.
Duration Session::open_time() const {
  if (!holds_lease() || url_.members.size() == 1) return kOpenTime;
  return std::clamp<Duration>(ttl_ / kOpenings, kShortestOpening, kOpenTime);
}

// So often is looked whether something is late.
void Session::tick() {
  const Duration pause = std::clamp<Duration>(url_.lease / 10, milliseconds(50), milliseconds(200));
  tick_ = loop_.timers.schedule(Clock::now() + pause, [this] { tick(); });
  const TimePoint now = Clock::now();
  const Duration silence = std::min<Duration>(url_.lease / 3, kLongestSilence);
  if (!up()) {
    if (rpc_ != nullptr && now > open_until_) down("it does not answer");
    return;
  }
  const auto oldest = rpc_->unanswered_since();
  if ((oldest && now - *oldest > silence) || (beat_sent_ && now - *beat_sent_ > silence)) {
    return down("it does not answer");
  }
  if (!beat_sent_ && now >= beat_at_) beat();
}

}  // namespace lockfs::etcd
