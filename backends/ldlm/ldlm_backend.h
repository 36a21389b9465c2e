// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/blind_engine.h"
#include "backends/ldlm/ldlm_session.h"
#include "backends/ldlm/ldlm_url.h"
#include "backends/net/rpc.h"
#include "backends/outlet.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `ldlm://`: a server of LDLM. A claim is a key of a lock there, slots are so many keys of one
/// with more of them, and each key has a session of its own: what nobody can be sure of is given
/// back by the end of its connection alone. Exclusive and slots, towards other mounts; others are
/// not seen. All on the loop.
class LdlmBackend final : public BlindEngine, private ldlm::Session::Events {
 public:
  /// How long an acquire waits for a server that is out of reach.
  static constexpr auto kPatience = std::chrono::milliseconds(900);
  /// How soon is asked again when a connection could not be made, or broke.
  static constexpr auto kAgain = std::chrono::milliseconds(200);
  /// How long is asked nothing when the password is wrong.
  static constexpr auto kDenied = std::chrono::seconds(2);
  /// How soon a server that was out of reach is looked for, if nobody asks for a lock.
  static constexpr auto kLook = std::chrono::seconds(3);
  /// Sessions that have no key are kept for the next one.
  static constexpr auto kIdleTime = std::chrono::seconds(10);
  static constexpr size_t kMostIdle = 16;

  /// `loop` outlives this.
  LdlmBackend(EventLoop& loop, const ldlm::Url& url);
  ~LdlmBackend() override;
  LdlmBackend(const LdlmBackend&) = delete;
  LdlmBackend& operator=(const LdlmBackend&) = delete;

  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void acquire_slots(ClaimId claim, std::string_view lockspace, std::string_view name,
                     SlotClaim slots, bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;

 private:
  using Session = ldlm::Session;
  struct Claim {
    std::string name;  ///< There.
    std::vector<Session*> keys;
    uint32_t size = 1;        ///< How many keys the lock has in all,
    uint32_t wanted = 1;      ///< and how many of them this claim is to have.
    size_t had = 0;           ///< Before it was asked for more.
    Session* asks = nullptr;  ///< For the next key.
    Mode mode = Mode::kNL;    ///< To be told when it has them.
    bool held = false;        ///< It was told of a grant.
    uint64_t number = 0;      ///< Of what was asked for last.
    bool pending = false;     ///< Asked for, and neither granted nor refused.
    bool waits = false;       ///< As long as it takes; else
    LockErrc refusal = LockErrc::kWouldBlock;
    TimerId patience = TimerId::kNone;  ///< Unless the server is known to be there.
  };
  /// Keys of a lock that are being given back. Until they are, nobody here asks for it.
  struct Leaving {
    size_t count = 0;
    std::set<ClaimId> next;
  };

  void taken(Session& session) override;
  void refused(Session& session, Session::Refusal why) override;
  void waits(Session& session) override;
  void left(Session& session) override;
  void found(Session& session) override;
  void broken(Session& session, const std::string& why, Session::End how) override;

  void ask(ClaimId id, Claim& claim, bool now, uint32_t size);
  void advance(ClaimId id);
  bool has_enough(Claim& claim);
  void grant(ClaimId id, Claim& claim);
  void fail(ClaimId id, LockErrc why);
  void lose(ClaimId id, const std::string& why);
  void wait_for_server(ClaimId id, Claim& claim);
  void stop_waiting_for_server(Claim& claim);
  void resolve();
  void try_next_address(const Session& silent);
  Session& free_session();
  void keep(Session& session);
  void end(Session& session);
  void end_asking(Claim& claim);
  void give_back(Session& session);
  void will_leave(Session& session);
  void has_left(const std::string& name);
  void in_trouble(const std::string& why);
  void look();
  void all_is_well();

  EventLoop& loop_;
  const ldlm::Url url_;
  std::unordered_map<ClaimId, Claim> claims_;
  std::unordered_map<std::string, Leaving> leaving_;  ///< By name.
  struct Idle {
    Session* session = nullptr;
    TimePoint since;
  };
  std::deque<Idle> idle_;                ///< The last one is used first.
  std::vector<net::Address> addresses_;  ///< Of the server; none before it is known.
  size_t address_ = 0;                   ///< Which of them is connected to.
  bool resolving_ = false;
  TimePoint denied_until_;
  uint64_t last_token_ = 0;
  std::string logged_;
  bool looks_ = false;  ///< A look is due.
  std::shared_ptr<Outlet> outlet_;
  net::RpcThread thread_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;  ///< All.
};

}  // namespace lockfs
