// SPDX-License-Identifier: MIT
#include "backends/libpod/libpod_backend.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <system_error>
#include <utility>

#include "backends/worker_thread.h"
#include "core/processes.h"

namespace lockfs {
namespace {

// The number, as podman writes it.
std::optional<uint32_t> id_of(std::string_view name) {
  uint32_t id = 0;
  const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (wrong != std::errc() || std::to_string(id) != name) return std::nullopt;
  return id;
}

// podman keeps no tokens: the time of the grant in microseconds grows from holder to holder.
TokenBlock token_of_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  return {micros, micros + 1};
}

// Who holds: the process of a thread, as /proc knows it.
Presence holder_of(pid_t thread, const std::string& host) {
  Presence who;
  who.host = host;
  if (thread == 0) return who;
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Tgid:")) who.pid = std::stoi(line.substr(5));
    if (line.starts_with("Uid:")) who.uid = static_cast<uid_t>(std::stoul(line.substr(4)));
  }
  if (who.pid == 0) {
    who.note = fmt::format("thread {}, which this host's /proc does not know", thread);
    return who;
  }
  std::ifstream comm(fmt::format("/proc/{}/comm", who.pid));
  std::getline(comm, who.comm);
  who.note = fmt::format("thread {}", thread);
  return who;
}

}  // namespace

LibpodBackend::LibpodBackend(EventLoop& loop, std::unique_ptr<libpod::Locks> locks, bool may_write)
    : outlet_(std::make_shared<Outlet>(loop)), locks_(std::move(locks)), may_write_(may_write) {
  traits_.name = "libpod";
  traits_.shared_modes = false;
  traits_.fifo = false;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.value_block = false;
  host_ = host_name();
}

LibpodBackend::~LibpodBackend() { outlet_->close(); }

void LibpodBackend::acquire(ClaimId claim, std::string_view /*lockspace*/, std::string_view name,
                            Mode /*mode*/, bool now) {
  const auto known = claims_.find(claim);
  if (known != claims_.end() && known->second.held) return grant(claim);
  const auto id = id_of(name);
  if (!may_write_) return events_->failed(claim, LockErrc::kNotSupported);
  if (!id || !locks_->is_allocated(*id)) return events_->failed(claim, LockErrc::kNotFound);
  libpod::LockThread* thread = thread_of(*id);
  if (thread == nullptr) return events_->failed(claim, LockErrc::kLimit);
  claims_[claim] = {*id, false};
  thread->acquire(claim, now);
}

libpod::LockThread* LibpodBackend::thread_of(uint32_t id) {
  const auto known = threads_.find(id);
  if (known != threads_.end()) return known->second.get();
  const auto answer = [this, outlet = outlet_](ClaimId asked, LockErrc result) {
    outlet->post([this, asked, result] { answered(asked, result); });
  };
  try {
    return (threads_[id] = std::make_unique<libpod::LockThread>(locks_, id, answer)).get();
  } catch (const std::system_error& error) {
    spdlog::error("there is no thread to take podman's lock {}: {}", id, error.what());
    return nullptr;
  }
}

void LibpodBackend::answered(ClaimId claim, LockErrc result) {
  const auto found = claims_.find(claim);
  if (found == claims_.end()) return;
  if (result == LockErrc::kOk) {
    found->second.held = true;
    return grant(claim);
  }
  claims_.erase(found);
  events_->failed(claim, result);
}

void LibpodBackend::grant(ClaimId claim) { events_->granted(claim, Mode::kEX, token_of_now()); }

void LibpodBackend::cancel(ClaimId claim) {
  const auto found = claims_.find(claim);
  if (found == claims_.end() || found->second.held) return;
  if (!threads_.at(found->second.id)->cancel(claim)) return;  // Its answer is under way.
  outlet_->post([this, claim] { answered(claim, LockErrc::kInterrupted); });
}

void LibpodBackend::release(ClaimId claim) {
  const auto found = claims_.find(claim);
  if (found == claims_.end()) return;
  threads_.at(found->second.id)->release(claim);
  claims_.erase(found);
}

bool LibpodBackend::holds(uint32_t id) const {
  return std::any_of(claims_.begin(), claims_.end(),
                     [&](const auto& each) { return each.second.id == id && each.second.held; });
}

std::optional<RemoteLock> LibpodBackend::show(uint32_t id) {
  RemoteLock out;
  out.name = std::to_string(id);
  if (locks_->is_allocated(id)) out.pin = Pin{locks_->owner(), 0600, true};
  const auto thread = locks_->holder(id);
  if (thread) {
    Presence who = holder_of(*thread, host_);
    // The kernel names no process for a lock of ours on a file.
    const bool ours = who.pid == getpid() || (*thread == 0 && holds(id));
    if (!ours) out.claims.push_back({Mode::kEX, false, 0, std::move(who)});
  }
  if (!out.pin && out.claims.empty()) return std::nullopt;
  return out;
}

void LibpodBackend::inspect(QueryId query, std::string_view /*lockspace*/, std::string_view name) {
  std::vector<RemoteLock> locks;
  if (const auto id = id_of(name)) {
    if (auto lock = show(*id)) locks.push_back(std::move(*lock));
  }
  events_->answered(query, LockErrc::kOk, std::move(locks));
}

void LibpodBackend::list(QueryId query, std::string_view /*lockspace*/) {
  std::vector<RemoteLock> locks;
  for (const uint32_t id : locks_->allocated()) {
    if (auto lock = show(id)) locks.push_back(std::move(*lock));
  }
  events_->answered(query, LockErrc::kOk, std::move(locks));
}

// podman may be within a change of its own: not on the loop.
void LibpodBackend::change(QueryId query, std::function<LockErrc(libpod::Locks&)> work) {
  const bool runs = detached_thread(
      "change a lock of podman's",
      [this, outlet = outlet_, locks = locks_, query, work = std::move(work)] {
        const LockErrc result = work(*locks);
        outlet->post([this, query, result] { events_->answered(query, result, {}); });
      });
  if (!runs) events_->answered(query, LockErrc::kLimit, {});
}

void LibpodBackend::pin(QueryId query, std::string_view /*lockspace*/, std::string_view name,
                        const Pin& pin, bool fresh) {
  const auto id = id_of(name);
  const bool can = may_write_ && pin.allocated && fresh;
  if (!can) return events_->answered(query, LockErrc::kNotSupported, {});
  if (!id || *id >= locks_->capacity()) {
    return events_->answered(query, LockErrc::kExhausted, {});
  }
  change(query, [id = *id](libpod::Locks& locks) { return locks.allocate(id); });
}

void LibpodBackend::unpin(QueryId query, std::string_view /*lockspace*/, std::string_view name) {
  const auto id = id_of(name);
  if (!may_write_) return events_->answered(query, LockErrc::kNotSupported, {});
  if (!id || *id >= locks_->capacity()) return events_->answered(query, LockErrc::kNotFound, {});
  change(query, [id = *id](libpod::Locks& locks) { return locks.free(id); });
}

}  // namespace lockfs
