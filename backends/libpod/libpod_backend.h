// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "backends/libpod/lock_thread.h"
#include "backends/outlet.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `?layout=libpod`: podman's own locks as files. A lock is an id that podman knows; its name is
/// the number. Who holds one is read from podman's records. Unless `may_write`, nothing is taken,
/// allocated or freed: kNotSupported. All lockspaces of the backend show the same locks.
class LibpodBackend final : public LockBackend {
 public:
  /// `loop` outlives this.
  LibpodBackend(EventLoop& loop, std::unique_ptr<libpod::Locks> locks, bool may_write);
  ~LibpodBackend() override;
  LibpodBackend(const LibpodBackend&) = delete;
  LibpodBackend& operator=(const LibpodBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
  void start(ClaimEvents& events) override { events_ = &events; }
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId /*claim*/, const Presence& /*who*/) override {}  // No place for it.
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  struct Claim {
    uint32_t id = 0;
    bool held = false;
  };
  /// Null: the host has no more threads.
  libpod::LockThread* thread_of(uint32_t id);
  void answered(ClaimId claim, LockErrc result);
  void grant(ClaimId claim);
  bool holds(uint32_t id) const;
  std::optional<RemoteLock> show(uint32_t id);
  void change(QueryId query, std::function<LockErrc(libpod::Locks&)> work);

  std::shared_ptr<Outlet> outlet_;
  std::shared_ptr<libpod::Locks> locks_;
  bool may_write_;
  LockTraits traits_;
  std::string host_;
  ClaimEvents* events_ = nullptr;
  std::unordered_map<ClaimId, Claim> claims_;
  std::map<uint32_t, std::unique_ptr<libpod::LockThread>> threads_;  ///< One for each lock.
};

}  // namespace lockfs
