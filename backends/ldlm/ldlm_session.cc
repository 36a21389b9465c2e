// SPDX-License-Identifier: MIT
#include "backends/ldlm/ldlm_session.h"

#include <algorithm>

namespace lockfs::ldlm {
namespace {

constexpr const char* kLock = "/ldlm.LDLM/Lock";
constexpr const char* kTryLock = "/ldlm.LDLM/TryLock";
constexpr const char* kUnlock = "/ldlm.LDLM/Unlock";
constexpr const char* kRenew = "/ldlm.LDLM/Renew";
constexpr const char* kSilence = "it did not answer";
// A wait that lasts so long is asked about: until then the answer tells.
constexpr auto kFirstQuestion = std::chrono::milliseconds(100);
constexpr Duration kSilenceOfAWait = std::chrono::seconds(2);

int32_t seconds(Duration time) {
  return static_cast<int32_t>(std::chrono::duration_cast<std::chrono::seconds>(time).count());
}

}  // namespace

Session::Session(EventLoop& loop, net::RpcThread& thread, const Url& url,
                 const net::Address& address, Events& events)
    : loop_(loop), url_(url), events_(events), rpc_(loop, thread, url.server, address) {
  if (!url.password.empty()) rpc_.add_metadata("authorization", url.password);
  rpc_.when_broken([this] { fail("the connection has ended"); });
}

Session::~Session() { loop_.timers.cancel(timer_); }

void Session::take(const std::string& name, uint32_t size, bool waits) {
  name_ = name;
  key_.clear();
  unanswered_.reset();
  stage_ = waits ? Stage::kWaiting : Stage::kTrying;
  const auto done = [this, sent = Clock::now()](const grpc::Status& status,
                                                const wire::LockResponse& response) {
    answered(sent, status, response);
  };
  const auto ask = [&](const char* method, auto request) {
    request.set_name(name);
    request.set_size(static_cast<int32_t>(size));
    request.set_lock_timeout_seconds(seconds(url_.lease));
    rpc_.call<decltype(request), wire::LockResponse>(method, request, done, waits);
  };
  if (!waits) return ask(kTryLock, wire::TryLockRequest());
  ask(kLock, wire::LockRequest());
  next_ = Clock::now() + kFirstQuestion;
  arm();
}

void Session::answered(TimePoint sent, const grpc::Status& status,
                       const wire::LockResponse& response) {
  const bool waited = stage_ == Stage::kWaiting;
  if (!status.ok()) return fail(status);
  if (response.locked()) {
    key_ = response.key();
    if (Clock::now() < sent + url_.lease / 3) {
      extend(sent);
      stage_ = Stage::kHeld;
      arm();
      return events_.taken(*this);
    }
    stage_ = Stage::kConfirming;
    return renew();
  }
  const bool size = response.error().code() == wire::LOCK_SIZE_MISMATCH ||
                    response.error().code() == wire::INVALID_LOCK_SIZE;
  if (!size && response.has_error()) return fail(response.error().message(), End::kAnswered);
  if (!size && waited) return fail("it refuses who waits", End::kAnswered);
  stage_ = Stage::kIdle;
  events_.refused(*this, size ? Refusal::kSize : Refusal::kTaken);
}

// Of a key, or, while there is none, of one that does not exist: the answer is that it does not,
// and that the connection is there on which we wait.
void Session::renew() {
  wire::RenewRequest request;
  request.set_name(name_);
  request.set_key(key_);
  request.set_lock_timeout_seconds(seconds(url_.lease));
  const TimePoint sent = Clock::now();
  unanswered_ = sent;
  next_ = sent + interval();
  arm();
  rpc_.call<wire::RenewRequest, wire::LockResponse>(
      kRenew, request,
      [this, key = key_, sent](const grpc::Status& status, const wire::LockResponse& response) {
        renewed(key, sent, status, response);
      });
}

void Session::renewed(const std::string& key, TimePoint sent, const grpc::Status& status,
                      const wire::LockResponse& response) {
  if (!status.ok()) return fail(status);
  if (unanswered_ == sent) unanswered_.reset();
  if (stage_ == Stage::kLeaving) return unlock();
  if (stage_ == Stage::kLooking) {
    stage_ = Stage::kIdle;
    arm();
    return events_.found(*this);
  }
  if (stage_ == Stage::kWaiting) {
    arm();
    return events_.waits(*this);
  }
  if (key != key_ || (stage_ != Stage::kHeld && stage_ != Stage::kConfirming)) {
    return arm();  // Of a wait that has ended meanwhile.
  }
  if (!response.locked()) return fail("it is not ours any more", End::kAnswered);
  extend(sent);
  if (Clock::now() >= end_) return fail("the lease ran out: " + std::string(kSilence));
  const bool confirmed = stage_ == Stage::kConfirming;
  stage_ = Stage::kHeld;
  arm();
  if (confirmed) events_.taken(*this);
}

void Session::look() {
  name_.clear();
  key_.clear();
  stage_ = Stage::kLooking;
  renew();
}

void Session::extend(TimePoint sent) {
  end_ = sent + std::min<Duration>(url_.lease - url_.lease / kMargin, kLongestSilence);
  next_ = sent + interval();
}

// Between renewals.
Duration Session::interval() const { return std::min<Duration>(url_.lease, kLongestSilence) / 3; }

void Session::leave() {
  stage_ = Stage::kLeaving;
  if (!unanswered_) return unlock();
  arm();
}

void Session::unlock() {
  stage_ = Stage::kLeft;
  unanswered_ = Clock::now();
  arm();
  wire::UnlockRequest request;
  request.set_name(name_);
  request.set_key(key_);
  rpc_.call<wire::UnlockRequest, wire::UnlockResponse>(
      kUnlock, request,
      [this](const grpc::Status& status, const wire::UnlockResponse& /*response*/) {
        if (!status.ok()) return fail(status);
        unanswered_.reset();
        stage_ = Stage::kIdle;
        events_.left(*this);
      });
}

void Session::fail(const grpc::Status& status) {
  const bool denied = status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
  events_.broken(*this, status.error_message(), denied ? End::kDenied : End::kSilent);
}

// How long an answer may take.
Duration Session::patience() const {
  if (stage_ == Stage::kHeld) return kLongestSilence;
  return std::min<Duration>(url_.lease / 3, kSilenceOfAWait);
}

void Session::wake() {
  timer_ = TimerId::kNone;
  const TimePoint now = Clock::now();
  if (stage_ == Stage::kHeld && now >= end_) {
    return fail("the lease ran out: " + std::string(kSilence));
  }
  if (unanswered_ && now >= *unanswered_ + patience()) return fail(kSilence);
  const bool renews = stage_ == Stage::kHeld || stage_ == Stage::kWaiting;
  if (renews && !unanswered_ && now >= next_) return renew();
  arm();
}

void Session::arm() {
  loop_.timers.cancel(timer_);
  timer_ = TimerId::kNone;
  std::optional<TimePoint> when;
  const auto at = [&](TimePoint time) { when = when ? std::min(*when, time) : time; };
  if (stage_ == Stage::kHeld) at(end_);
  if (unanswered_) at(*unanswered_ + patience());
  if (!unanswered_ && (stage_ == Stage::kHeld || stage_ == Stage::kWaiting)) at(next_);
  if (when) timer_ = loop_.timers.schedule(*when, [this] { wake(); });
}

}  // namespace lockfs::ldlm
