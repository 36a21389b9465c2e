// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/etcd/mirror.h"
#include "backends/etcd/queue.h"
#include "backends/etcd/session.h"
#include "backends/outlet.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `etcd://`: the locks of all mounts, and of all programs that use etcd's concurrency recipe, of
/// one cluster. A claim is a key of this mount's lease; the keys of a lock, in the order in which
/// they were made, are its queue (etcd::Queue). To acquire is one transaction; whoever must wait
/// sees in the mirror when its turn has come, and then looks whether it has. All on the loop.
///
/// For each lock there is one operation on its way at a time, and each says of which revision of
/// our key it speaks: what an ended connection delivers late changes nothing any more, or makes a
/// key that is seen and goes.
class EtcdBackend final : public LockBackend, private etcd::SessionEvents {
 public:
  /// How long an acquire waits for a cluster that is out of reach.
  static constexpr auto kPatience = std::chrono::milliseconds(900);

  /// `loop` outlives this.
  EtcdBackend(EventLoop& loop, const etcd::Url& url);
  ~EtcdBackend() override;
  EtcdBackend(const EtcdBackend&) = delete;
  EtcdBackend& operator=(const EtcdBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
  void join(QueryId query, std::string_view lockspace, mode_t mode) override;
  void leave(QueryId query, std::string_view lockspace, bool force) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  using Txn = etcd::wire::TxnRequest;
  using Answer = etcd::wire::TxnResponse;
  using Entry = etcd::Entry;
  using Queue = etcd::Queue;

  struct Ask {
    Mode mode = Mode::kNL;
    bool now = false;
    bool cancelled = false;               ///< Its end is told when what is on its way is known.
    uint64_t number = 0;                  ///< Never used twice.
    std::optional<TimePoint> deadlocked;  ///< Since when it looks like that.
    TimerId patience = TimerId::kNone;
  };
  /// One lock: what the table wants of it, and what the cluster has of us.
  struct Place {
    std::string space;
    std::string name;
    ClaimId id = ClaimId::kNone;  ///< kNone: only its key is to go.
    std::optional<Mode> held;     ///< As the table knows it.
    std::optional<Ask> ask;
    std::string words;   ///< Who; to be shown.
    Entry own;           ///< Our key, as of revision `mod`; `create` 0: there is none.
    bool busy = false;   ///< An operation is on its way.
    int64_t doomed = 0;  ///< The key that this revision made is to go before anything else.
    bool contended = false;
    std::string blocker;  ///< The owner of a key that stands before ours.
  };

  void came_up() override;
  void went_down(const std::string& why) override;
  void expired(const std::string& why) override;
  void watched(const etcd::wire::WatchResponse& response) override;

  // What is asked of lockspaces.
  struct Question {
    QueryId query = QueryId::kNone;
    std::function<void()> work;
    bool joins = false;  ///< It waits for a cluster that is not there yet.
  };
  void when_known(const std::string& space, QueryId query, std::function<void()> work);
  void load(const std::string& space);
  void load_again(const std::string& space, Duration time);
  void loaded(const std::string& space, const Answer* answer);
  void change_pin(QueryId query, std::string_view lockspace, std::string_view name,
                  const std::optional<Pin>& pin, bool fresh);

  // A claim's way: each step is taken as soon as the one before it is known to be done.
  static std::string place_of(std::string_view space, std::string_view name) {
    return std::string(space) + "/" + std::string(name);
  }
  Place* find(ClaimId id);
  Place* find(const std::string& place);
  void step(Place& place);
  bool adopt(Place& place);
  /// All keys of a lock as the cluster has them at that revision. The mirror may have later news
  /// then, or not all of it yet; but nothing in it is proven wrong.
  struct Look {
    Queue keys;
    int64_t revision = 0;
    int64_t converted = 0;  ///< The last token that a conversion took.
  };
  using Seen = std::function<void(Place& place, const Look& now, Ask& ask)>;
  void look(Place& place, Seen seen);
  void look_at_own(Place& place);
  void missed(const std::string& space);
  void send_acquire(Place& place);
  void acquired(Place& place, const Entry& sent, const Answer& answer, const Ask* ask);
  void send_try(Place& place);
  void tried(Place& place, const Entry& sent, const Answer& answer, const Ask* ask);
  void wait_turn(Place& place);
  void wait_behind(Place& place, const Entry& blocker);
  void take_turn(Place& place, const Look& now, const Ask& ask);
  void convert(Place& place);
  void convert_by(Place& place, const Look& now, Ask& ask);
  void wait_for_others(Place& place);
  bool is_deadlock(Place& place, Queue::Turn turn);
  void convert_now(Place& place, const Queue::Conversion& conversion, int64_t revision);
  void keep_up(Place& place);
  void send_delete(Place& place);
  /// What an operation is for. The grant and the refusal of an ask are of the ask that it was sent
  /// for, never of a later one.
  enum class For { kGrant, kAsk, kKey };
  void put(Place& place, const Entry& entry, For what);
  /// Done gets the ask for which it was, or null: it is over.
  using Done = std::function<void(Place& place, const Answer& answer, Ask* ask)>;
  void transact(Place& place, const Txn& txn, For what, Done done);
  void retry(Place& place, Duration time);
  void granted(Place& place, int64_t token);
  void hint(Place& place);
  void fail(Place& place, LockErrc why);
  void end_ask(Place& place);
  void forsake(Place& place);
  void lose(Place& place, const std::string& why);
  static bool is_queued(const Place& place);
  void wait_for_cluster(Place& place);
  /// Our key is not as we thought: what it is as of a revision.
  void resync(Place& place, const Entry* own, int64_t revision);
  void resync_with(Place& place, const etcd::wire::RangeResponse& own, int64_t revision);
  void look_around();
  void look_over(const std::string& space, const std::string& from);
  void looked_over(const std::string& space, const std::string& from,
                   const etcd::wire::RangeResponse& answer);
  void step_all(const std::string& space);
  void forget_left();
  void suspect(const std::string& space, const std::string& name);
  void sweep();

  // Parts of transactions.
  std::string key_of(const Place& place) const;
  Entry entry_of(const Place& place) const;
  void put_own(Txn& txn, const Place& place, const Entry& entry) const;
  void read_own(Txn& txn, const Place& place) const;
  void takes_token(Txn& txn, const Place& place) const;
  Queue queue_in(const Place& place, const etcd::wire::RangeResponse& range) const;

  EventLoop& loop_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  std::string cluster_;
  etcd::Keys keys_;
  etcd::Mirror mirror_;
  uint64_t last_ask_ = 0;
  int64_t last_end_ = 0;  ///< The latest revision in which a key of ours was deleted.
  std::unordered_map<std::string, Place> places_;
  std::unordered_map<ClaimId, Place*> by_id_;
  std::set<std::string> spaces_;  ///< Which the mirror is to know.
  /// Of these, those that were left before all was known of our keys; and since when they are here.
  std::map<std::string, TimePoint> left_;
  std::map<std::string, std::vector<Question>> loading_;
  /// How far a lockspace was compared with the cluster.
  struct Overview {
    std::string from;   ///< What comes next.
    TimePoint done_at;  ///< When it was all.
  };
  std::map<std::string, Overview> overviews_;
  std::set<std::pair<std::string, std::string>> strays_;  ///< Keys of ours that nobody here wants.
  bool sweeping_ = false;
  std::shared_ptr<Outlet> outlet_;
  etcd::Session session_;
};

}  // namespace lockfs
