// SPDX-License-Identifier: MIT
#include "backends/late_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "backends/registry.h"
#include "backends/worker_thread.h"

namespace lockfs {

// What the backend tells the table, but for the answers to what was asked by us.
class LateBackend::Events final : public ClaimEvents {
 public:
  Events(LateBackend& late, ClaimEvents& table) : late_(late), table_(table) {}
  void granted(ClaimId claim, Mode mode, TokenBlock tokens) override {
    table_.granted(claim, mode, tokens);
  }
  void value(ClaimId claim, const LockValue& value) override { table_.value(claim, value); }
  void failed(ClaimId claim, LockErrc why) override { table_.failed(claim, why); }
  void contended(ClaimId claim) override { table_.contended(claim); }
  void uncontended(ClaimId claim) override { table_.uncontended(claim); }
  void lost(ClaimId claim, std::string_view why) override { table_.lost(claim, why); }
  void reach_changed() override { table_.reach_changed(); }
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock> locks) override {
    // The table's ids are a SlotMap's, which gives none of ours.
    const bool ours = query != QueryId::kNone && static_cast<uint64_t>(query) <= late_.last_query_;
    if (!ours) return table_.answered(query, result, std::move(locks));
    for (const auto& [lockspace, unjoined] : late_.unjoined_) {
      if (unjoined.query == query) return late_.joined(std::string(lockspace), result);
    }
  }

 private:
  LateBackend& late_;
  ClaimEvents& table_;
};

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
  unknown_.joins = true;        // So that we know what is to be joined.
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
  if (detached_thread("try " + shown_url(url_), body)) return;
  trouble_ = "it cannot be tried, for there is no thread to be had";
  try_later();
}

void LateBackend::take(const Prepared& prepared) {
  if (!prepared) {
    trouble_ = prepared.error();
    return try_later();
  }
  try {
    passed_on_ = std::make_unique<Events>(*this, *events_);
    made_ = (*prepared)(loop_);
    made_->start(*passed_on_);
  } catch (const std::system_error& error) {  // It has threads of its own.
    made_.reset();
    trouble_ = fmt::format("it cannot be started: {}", error.what());
    return try_later();
  }
  spdlog::info("{} is there now", shown_url(url_));
  if (!made_->traits().joins) unjoined_.clear();
  std::vector<std::string> lockspaces;
  for (const auto& [lockspace, unjoined] : unjoined_) lockspaces.push_back(lockspace);
  for (const std::string& lockspace : lockspaces) join_now(lockspace);
  events_->reach_changed();
}

void LateBackend::join_now(const std::string& lockspace) {
  const auto found = unjoined_.find(lockspace);
  if (found == unjoined_.end()) return;
  found->second.query = QueryId{++last_query_};
  made_->join(found->second.query, lockspace, found->second.mode);
}

void LateBackend::join_later(const std::string& lockspace, Duration retry) {
  outlet_->after(retry, [this, lockspace] {
    // What the backend itself knows to be in vain is not tried.
    if (!unjoined_.contains(lockspace)) return;  // The table has left it.
    made_->trouble().empty() ? join_now(lockspace) : join_later(lockspace, retry_);
  });
}

void LateBackend::joined(const std::string& lockspace, LockErrc result) {
  Unjoined& unjoined = unjoined_.at(lockspace);
  unjoined.query = QueryId::kNone;
  unjoined.why = result;
  if (result == LockErrc::kOk) {
    unjoined_.erase(lockspace);
  } else {
    spdlog::error("{}: lockspace {} cannot be joined: {}", shown_url(url_), lockspace,
                  make_error_code(result).message());
    // A name does not get better.
    if (result != LockErrc::kInvalid) join_later(lockspace, retry_ * unjoined.retries);
    unjoined.retries = std::min(2 * unjoined.retries, kMostRetries);
  }
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

std::string LateBackend::trouble() const {
  if (!made_) return trouble_;
  std::string out = made_->trouble();
  if (!out.empty() || unjoined_.empty()) return out;
  const auto& [lockspace, unjoined] = *unjoined_.begin();
  if (unjoined.why == LockErrc::kOk) return fmt::format("lockspace {} is being joined", lockspace);
  return fmt::format("lockspace {} cannot be joined: {}", lockspace,
                     make_error_code(unjoined.why).message());
}

void LateBackend::join(QueryId query, std::string_view lockspace, mode_t mode) {
  if (made_) return made_->join(query, lockspace, mode);
  unjoined_[std::string(lockspace)].mode = mode;
  events_->answered(query, LockErrc::kOk, {});
}
void LateBackend::leave(QueryId query, std::string_view lockspace, bool force) {
  if (const auto found = unjoined_.find(lockspace); found != unjoined_.end()) {
    unjoined_.erase(found);
  }
  if (made_) return made_->leave(query, lockspace, force);
  events_->answered(query, LockErrc::kOk, {});
}
void LateBackend::acquire_slots(ClaimId claim, std::string_view lockspace, std::string_view name,
                                SlotClaim slots, bool now) {
  if (!can_do(lockspace)) return events_->failed(claim, LockErrc::kUnreachable);
  made_->acquire_slots(claim, lockspace, name, slots, now);
}
void LateBackend::set_value(ClaimId claim, const LockValue& value) {
  if (made_) made_->set_value(claim, value);
}
void LateBackend::acquire(ClaimId claim, std::string_view lockspace, std::string_view name,
                          Mode mode, bool now) {
  if (!can_do(lockspace)) return events_->failed(claim, LockErrc::kUnreachable);
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
  can_do(lockspace) ? made_->inspect(query, lockspace, name) : refuse(query);
}
void LateBackend::list(QueryId query, std::string_view lockspace) {
  can_do(lockspace) ? made_->list(query, lockspace) : refuse(query);
}
void LateBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                      const Pin& pin, bool fresh) {
  can_do(lockspace) ? made_->pin(query, lockspace, name, pin, fresh) : refuse(query);
}
void LateBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  can_do(lockspace) ? made_->unpin(query, lockspace, name) : refuse(query);
}

}  // namespace lockfs
