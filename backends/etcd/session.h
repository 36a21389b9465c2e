// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backends/etcd/etcd_url.h"
#include "backends/net/rpc.h"
#include "core/event_loop.h"
#include "etcd.pb.h"

namespace lockfs::etcd {

/// What a session tells. Any of them may call the session.
class SessionEvents {
 public:
  virtual ~SessionEvents() = default;
  /// A member is there, for the first time or again. What has changed meanwhile is unknown.
  virtual void came_up() = 0;
  /// It is out of reach; what was asked and not answered may be done, or be done later.
  virtual void went_down(const std::string& why) = 0;
  /// The lease ends before it could be renewed: no key of it counts any more.
  virtual void expired(const std::string& why) = 0;
  /// Of what is watched.
  virtual void watched(const wire::WatchResponse& response) = 0;
};

/// This mount as the cluster knows it: its lease, and a connection to one member after the other.
/// All on the loop.
///
/// The lease is counted from when its last renewal was sent, and given up a tenth before its end.
/// A renewal counts when the same member has also answered a read that needs a quorum, sent with
/// it: else it may be of a leader that is none any more. After a change of its leader the cluster
/// counts a lease anew, from later.
class Session {
 public:
  /// Of a lease, which the session does not use.
  static constexpr int kMargin = 10;

  /// `loop` and `events` outlive this.
  Session(EventLoop& loop, Url url, SessionEvents& events);
  /// Ends the lease, and all its keys, if a member hears of it.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void start();
  bool up() const { return stage_ == Stage::kUp; }
  /// False from the end of the lease until came_up().
  bool holds_lease() const { return lease_end_ && Clock::now() < *lease_end_; }
  int64_t lease() const { return lease_; }
  /// The lease as it stands behind a lock's name: etcd's own clients write it so.
  std::string owner() const;
  /// Which member it speaks to, or tries to.
  std::string member() const { return url_.members[member_ % url_.members.size()].words(); }
  /// Why it is not up, in words.
  const std::string& trouble() const { return trouble_; }
  /// It refuses us for a reason that does not pass by itself, such as a wrong password.
  bool refused() const { return refused_; }
  /// What it answered when it last refused a call for a reason of its own, until a write succeeds.
  const std::string& refusal() const { return refusal_; }

  /// While it is up(). `done` gets the answer; nothing, of a call that was refused for a reason of
  /// its own, as for want of space or permission; and is not called if went_down() comes first. Of
  /// a `large` answer nobody says how long it may take.
  template <class Request, class Response>
  void call(const char* method, const Request& request,
            std::function<void(const Response* answer)> done, bool large = false) {
    rpc_->call<Request, Response>(
        method, request,
        [this, done = std::move(done)](const grpc::Status& status, const Response& answer) {
          if (status.ok()) return done(&answer);
          if (is_refusal(status)) done(nullptr);
        },
        large);
  }
  void transact(const wire::TxnRequest& request,
                std::function<void(const wire::TxnResponse* answer)> done, bool large = false) {
    call<wire::TxnRequest, wire::TxnResponse>(
        "/etcdserverpb.KV/Txn", request,
        [this, done = std::move(done)](const wire::TxnResponse* answer) {
          if (answer != nullptr && has_written(*answer)) refusal_.clear();
          done(answer);
        },
        large);
  }
  /// Tells all changes of keys of [key, end) from `revision` on, under a number that is not in use.
  void watch(int64_t number, const std::string& key, const std::string& end, int64_t revision);
  void unwatch(int64_t number);

 private:
  enum class Stage { kDown, kOpening, kUp };
  using KeepAlive = net::RpcStream<wire::LeaseKeepAliveRequest, wire::LeaseKeepAliveResponse>;
  using Watch = net::RpcStream<wire::WatchRequest, wire::WatchResponse>;

  void open();
  void connect();
  void down(const std::string& why);
  void log_in();
  void take_lease();
  void resume();
  void ready();
  void revoke(int64_t lease);
  void beat();
  void beaten(const wire::LeaseKeepAliveResponse& answer);
  void beat_done();
  void renew(TimePoint sent);
  void expire(const std::string& why);
  bool is_refusal(const grpc::Status& status);
  static bool has_written(const wire::TxnResponse& answer);
  /// Of the beginning: whatever is refused there ends it.
  void opening_failed(const grpc::Status& status);
  void tick();
  /// How long a member has, from now on, for all that makes it up.
  Duration open_time() const;

  EventLoop& loop_;
  Url url_;
  SessionEvents& events_;
  std::shared_ptr<Outlet> outlet_;
  net::RpcThread thread_;
  std::unique_ptr<net::Rpc> rpc_;
  std::shared_ptr<KeepAlive> keep_alive_;
  std::shared_ptr<Watch> watch_;
  std::set<int64_t> watches_;
  uint64_t opens_ = 0;
  size_t member_ = 0;                   ///< Which of the members, counted on and on.
  std::deque<net::Address> addresses_;  ///< Of it, those that were not tried yet.
  Stage stage_ = Stage::kDown;
  TimePoint open_until_;  ///< Then it must be up.
  int64_t lease_ = 0;
  Duration ttl_{};
  std::vector<int64_t> former_;  ///< Leases that we do not use any more; to be revoked.
  std::optional<TimePoint> lease_end_;
  std::optional<TimePoint> beat_sent_;  ///< Of the beat that has not both its answers.
  int beat_answers_ = 0;
  TimePoint beat_at_;
  std::string trouble_ = "not connected yet";
  std::string refusal_;
  std::string logged_;
  bool refused_ = false;
  Duration backoff_{};
  TimerId lease_timer_ = TimerId::kNone;
  TimerId tick_ = TimerId::kNone;
  TimerId retry_ = TimerId::kNone;
};

}  // namespace lockfs::etcd
