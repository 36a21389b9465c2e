// SPDX-License-Identifier: MIT
#include "backends/late_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <system_error>
#include <utility>

#include "backends/registry.h"
#include "backends/worker_thread.h"

namespace lockfs {

LateBackend::LateBackend(EventLoop& loop, std::string url, std::string why, Prepare prepare,
                         std::chrono::milliseconds retry)
    : loop_(loop),
      url_(std::move(url)),
      trouble_(std::move(why)),
      prepare_(std::move(prepare)),
      retry_(retry),
      outlet_(std::make_shared<Outlet>(loop)) {
  unknown_.name = url_.substr(0, url_.find(':'));
  unknown_.other_nodes = true;  // So that nobody decides without it.
}

LateBackend::~LateBackend() { outlet_->close(); }

void LateBackend::start(ClaimEvents& events) {
  events_ = &events;
  try_later();
}

void LateBackend::try_later() {
  trying_since_.reset();
  outlet_->after(retry_, [this] { try_now(); });
}

void LateBackend::try_now() {
  trying_since_ = loop_.timers.now();
  const auto body = [this, prepare = prepare_, outlet = outlet_] {
    outlet->post([this, prepared = prepare()] { take(prepared); });
  };
  try {
    worker_thread(body).detach();
  } catch (const std::system_error& error) {
    trouble_ =
        fmt::format("it cannot be tried, for there is no thread to be had: {}", error.what());
    try_later();
  }
}

void LateBackend::take(const Prepared& prepared) {
  if (!prepared) {
    trouble_ = prepared.error();
    return try_later();
  }
  spdlog::info("{} is there now", shown_url(url_));
  made_ = (*prepared)(loop_);
  made_->start(*events_);
  events_->reach_changed();
}

std::vector<std::pair<std::string, std::string>> LateBackend::status() const {
  if (made_) return made_->status();
  const Duration tried = trying_since_ ? loop_.timers.now() - *trying_since_ : Duration::zero();
  if (tried < retry_) return {{"state", trouble_}};
  return {{"state",
           fmt::format("what it needs has not answered for {} s; before that: {}",
                       std::chrono::duration_cast<std::chrono::seconds>(tried).count(), trouble_)}};
}

std::string LateBackend::trouble() const { return made_ ? made_->trouble() : trouble_; }

void LateBackend::join(QueryId query, std::string_view lockspace, mode_t mode) {
  made_ ? made_->join(query, lockspace, mode) : refuse(query);
}
void LateBackend::leave(QueryId query, std::string_view lockspace, bool force) {
  made_ ? made_->leave(query, lockspace, force) : refuse(query);
}
void LateBackend::acquire_slots(ClaimId claim, std::string_view lockspace, std::string_view name,
                                SlotClaim slots, bool now) {
  if (!made_) return events_->failed(claim, LockErrc::kUnreachable);
  made_->acquire_slots(claim, lockspace, name, slots, now);
}
void LateBackend::set_value(ClaimId claim, const LockValue& value) {
  if (made_) made_->set_value(claim, value);
}
void LateBackend::acquire(ClaimId claim, std::string_view lockspace, std::string_view name,
                          Mode mode, bool now) {
  if (!made_) return events_->failed(claim, LockErrc::kUnreachable);
  made_->acquire(claim, lockspace, name, mode, now);
}
void LateBackend::cancel(ClaimId claim) {
  if (made_) made_->cancel(claim);
}
void LateBackend::release(ClaimId claim) {
  if (made_) made_->release(claim);
}
void LateBackend::describe(ClaimId claim, const Presence& who) {
  if (made_) made_->describe(claim, who);
}
void LateBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  made_ ? made_->inspect(query, lockspace, name) : refuse(query);
}
void LateBackend::list(QueryId query, std::string_view lockspace) {
  made_ ? made_->list(query, lockspace) : refuse(query);
}
void LateBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                      const Pin& pin, bool fresh) {
  made_ ? made_->pin(query, lockspace, name, pin, fresh) : refuse(query);
}
void LateBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  made_ ? made_->unpin(query, lockspace, name) : refuse(query);
}

}  // namespace lockfs
