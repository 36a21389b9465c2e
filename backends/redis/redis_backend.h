// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/outlet.h"
#include "backends/redis/mirror.h"
#include "backends/redis/node.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `redis://`: the locks of all mounts that use one Redis database. A claim is a record there; each
/// verb is one call of locks.lua, whose answer or message is the event. What was released and is
/// wanted by nobody is kept, and taken again without a call. All on the loop.
class RedisBackend final : public LockBackend, private redis::NodeEvents {
 public:
  /// How long an acquire waits for a server that is out of reach. One that has a place in the
  /// server's queue waits as long as the lease lasts, and keeps its place.
  static constexpr auto kPatience = std::chrono::milliseconds(900);
  /// How long what nobody uses is kept, and how much of it.
  static constexpr auto kKeepTime = std::chrono::seconds(10);
  static constexpr size_t kMostKept = 10000;
  /// So many locks are looked at in one step, when a lockspace is loaded.
  static constexpr size_t kAtOnce = 500;
  /// locks.lua gives as many with each exclusive grant.
  static constexpr uint64_t kTokens = 1000;

  /// `loop` outlives this.
  RedisBackend(EventLoop& loop, const redis::Url& url);
  ~RedisBackend() override;
  RedisBackend(const RedisBackend&) = delete;
  RedisBackend& operator=(const RedisBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
  void join(QueryId query, std::string_view lockspace, mode_t mode) override;
  void leave(QueryId query, std::string_view lockspace, bool force) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void acquire_slots(ClaimId claim, std::string_view lockspace, std::string_view name,
                     SlotClaim slots, bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  using Answer = redis::Node::Answer;
  struct Claim;
  using Kept = std::list<Claim*>;
  struct Ask {
    Mode mode = Mode::kNL;
    SlotClaim slots;  ///< In place of the mode, if there are any.
    bool now = false;
    uint64_t op = 0;  ///< Never used twice, so that late answers find nobody.
    bool sent = false;
    bool queued = false;  ///< The server has said so.
    bool cancelled = false;
    bool refused = false;  ///< By an error, since it was answered last.
    TimerId patience = TimerId::kNone;
  };
  struct Claim {
    std::string place;
    ClaimId id = ClaimId::kNone;  ///< kNone: it is only kept.
    std::optional<Mode> held;     ///< As the server knows it; may be more than
    Mode told = Mode::kNL;        ///< what the table knows.
    SlotClaim slots;              ///< Held, if the mode stands for them.
    std::optional<Ask> ask;
    TokenBlock tokens;    ///< That the table has not got yet.
    std::string shown;    ///< Words that others see; "": none.
    bool wanted = false;  ///< By another node, as long as it holds what it does.
    bool told_wanted = false;
    bool resuming = false;  ///< It was lost by the server, which has not answered yet.
    Kept::iterator kept_at;
    TimePoint kept_since;
  };

  void came_up(std::vector<redis::Record> records) override;
  void went_down(const std::string& why) override;
  void expired(const std::string& why) override;
  void told(const std::vector<std::string_view>& parts) override;
  void shown(const std::vector<std::string_view>& parts) override { mirror_.shown(parts); }
  void grace_ended() override;

  Claim* find(ClaimId id);
  Claim* find_op(uint64_t op);
  Claim& make(const std::string& place, ClaimId id);
  void ask(Claim& claim, const Ask& what);
  bool suffices(const Claim& claim, Mode mode) const;
  void take(Claim& claim, Mode mode);
  void give_back(Claim& claim);
  void send(Claim& claim);
  void wait_for_server(Claim& claim);
  void wait_for_word();
  void answered(uint64_t op, const Answer& answer);
  void refused(uint64_t op);
  void is_foreign(std::string_view key);
  void granted(Claim& claim, Mode mode, std::string_view last, bool contended);
  void fail(Claim& claim, LockErrc why);
  void end_ask(Claim& claim);
  void end_cancelled();
  void each_ask(const std::function<void(Claim&)>& act);
  void hint(Claim& claim);
  void show(Claim& claim, const std::string& words);
  bool may_keep(const Claim& claim) const;
  void keep(Claim& claim);
  void unkeep(Claim& claim);
  void expire_kept();
  void drop(Claim& claim);
  void erase(Claim& claim);
  void lose(Claim& claim, const std::string& why);
  void resync(Claim& claim, const redis::Record* record);
  bool resync_held(Claim& claim, const redis::Record* record);
  void resume(Claim& claim);
  void when_known(const std::string& lockspace, QueryId query, std::function<void()> work);
  void load(const std::string& lockspace);
  using Places = std::shared_ptr<std::vector<std::string>>;
  void look(const std::string& lockspace, uint64_t version, const Places& left);
  void end_load(const std::string& lockspace);
  void pinned(QueryId query, const std::string& lockspace, const std::string& name,
              const std::optional<Pin>& pin, const Answer& answer);

  EventLoop& loop_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  std::string server_;
  uint64_t last_op_ = 0;
  std::unordered_map<std::string, Claim> claims_;  ///< By place.
  std::unordered_map<ClaimId, Claim*> by_id_;
  std::unordered_map<uint64_t, Claim*> by_op_;
  Kept kept_;  ///< The longest kept first.
  TimerId expiry_ = TimerId::kNone;
  redis::Mirror mirror_;
  struct Question {
    QueryId query = QueryId::kNone;
    std::function<void()> work;
  };
  std::set<std::string> spaces_;                          ///< Which the mirror is to know.
  std::map<std::string, std::vector<Question>> loading_;  ///< Until their lockspace is known.
  std::vector<QueryId> joining_;
  std::string foreign_;   ///< The key that was complained of last.
  bool started_ = false;  ///< It is known whether the server is there.
  std::shared_ptr<Outlet> outlet_;
  redis::Node node_;
};

}  // namespace lockfs
