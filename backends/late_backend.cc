// SPDX-License-Identifier: MIT
#include "backends/late_backend.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "backends/registry.h"

namespace lockfs {

LateBackend::LateBackend(EventLoop& loop, std::string url, std::function<Made()> make)
    : loop_(loop), url_(std::move(url)), make_(std::move(make)) {
  unknown_.name = url_.substr(0, url_.find(':'));
  unknown_.other_nodes = true;  // So that nobody decides without it.
  retry_ = loop_.timers.schedule(loop_.timers.now() + kRetry, [this] { try_again(); });
}

LateBackend::~LateBackend() { loop_.timers.cancel(retry_); }

void LateBackend::try_again() {
  auto made = make_();
  if (!made) {
    trouble_ = made.error();
    retry_ = loop_.timers.schedule(loop_.timers.now() + kRetry, [this] { try_again(); });
    return;
  }
  spdlog::info("{} is there now", shown_url(url_));
  made_ = std::move(*made);
  if (events_ == nullptr) return;
  made_->start(*events_);
  events_->reach_changed();
}

std::vector<std::pair<std::string, std::string>> LateBackend::status() const {
  if (made_) return made_->status();
  return {{"state", trouble_}};
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
