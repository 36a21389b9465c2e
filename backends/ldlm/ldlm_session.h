// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "backends/ldlm/ldlm_url.h"
#include "backends/net/rpc.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"
#include "ldlm.pb.h"

namespace lockfs::ldlm {

/// One session at the server: a connection of its own, and at most one key of one lock. The server
/// frees what a session has when its connection ends; so what is in doubt, ends with this. All on
/// the loop.
///
/// The lease of a key is counted from when the last answered renewal was sent, and given up a tenth
/// before its end; but after kLongestSilence in any case.
class Session {
 public:
  /// Of a lease, which is not used.
  static constexpr int kMargin = 10;
  /// A server ends a connection whose end does not acknowledge what it says for ten seconds, and it
  /// may have said something right after the last answer that we had. Who has had none for a tenth
  /// less has nothing any more, however long the lease.
  static constexpr auto kLongestSilence = std::chrono::seconds(9);

  enum class Refusal {
    kTaken,
    kSize,  ///< The lock has keys, but not so many.
  };
  enum class End {
    kAnswered,  ///< The server is there, and says so.
    kSilent,    ///< It is not, as far as this connection can tell.
    kDenied,    ///< The password was refused.
  };
  /// Each may end the session it tells of.
  class Events {
   public:
    virtual ~Events() = default;
    /// The key is had, and renewed from now on.
    virtual void taken(Session& session) = 0;
    /// The key is not to be had; the session has none, and may ask for another.
    virtual void refused(Session& session, Refusal why) = 0;
    /// The server is there, and the key is waited for. Once in a while.
    virtual void waits(Session& session) = 0;
    /// The key was given back; the session has none, and may ask for another.
    virtual void left(Session& session) = 0;
    /// The server is there, as was asked; the session has no key, and may ask for one.
    virtual void found(Session& session) = 0;
    /// The session has nothing any more, and is of no more use.
    virtual void broken(Session& session, const std::string& why, End end) = 0;
  };

  /// `loop`, `thread`, `url` and `events` outlive this.
  Session(EventLoop& loop, net::RpcThread& thread, const Url& url, const net::Address& address,
          Events& events);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Asks for one of `size` keys of a lock; waits for it in the server's queue, or is refused.
  void take(const std::string& name, uint32_t size, bool waits);
  /// Gives back the key it has.
  void leave();
  /// Asks nothing but whether the server is there.
  void look();
  /// Whether the lease of its key has not ended.
  bool is_held() const { return stage_ == Stage::kHeld && Clock::now() < end_; }
  /// Of the lock it was last asked for.
  const std::string& name() const { return name_; }

  ClaimId claim = ClaimId::kNone;  ///< Whose it is: for its owner to keep,
  size_t address_number = 0;       ///< as which of the addresses it is connected to.

 private:
  enum class Stage {
    kIdle,
    kTrying,
    kWaiting,
    kConfirming,  ///< Granted so long after it was asked for that only a renewal tells if it is.
    kHeld,
    kLeaving,  ///< As soon as the last renewal has its answer.
    kLeft,     ///< The server is told.
    kLooking,
  };
  void answered(TimePoint sent, const grpc::Status& status, const wire::LockResponse& response);
  void renew();
  void renewed(const std::string& key, TimePoint sent, const grpc::Status& status,
               const wire::LockResponse& response);
  void unlock();
  void extend(TimePoint sent);
  Duration interval() const;
  void fail(const grpc::Status& status);
  void fail(const std::string& why, End end = End::kSilent) { events_.broken(*this, why, end); }
  Duration patience() const;
  void wake();
  void arm();

  EventLoop& loop_;
  const Url& url_;
  Events& events_;
  Stage stage_ = Stage::kIdle;
  std::string name_;
  std::string key_;  ///< As the server names it.
  TimePoint end_;    ///< Of what is used of the lease.
  TimePoint next_;   ///< When the next renewal is due.
  /// The renewal or unlock that has no answer. One at a time: a server that has two of a key at
  /// once confirms an unlock and keeps the lock, or says that a renewed one has ended.
  std::optional<TimePoint> unanswered_;
  TimerId timer_ = TimerId::kNone;
  net::Rpc rpc_;
};

}  // namespace lockfs::ldlm
