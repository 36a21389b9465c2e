// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/journal.h"
#include "core/lock.h"
#include "core/processes.h"
#include "core/slot_map.h"
#include "core/timer_queue.h"
#include "core/user_quota.h"
#include "core/wait_for_graph.h"

namespace lockfs {

/// What the table tells its user. Called after a verb, a timer or a backend's event has done all
/// its work, never in the midst of it; verbs may be called from here.
class LockObserver {
 public:
  virtual ~LockObserver() = default;
  /// The wait that request() left open has ended; once for each, perhaps before request()
  /// returns.
  virtual void answered(OwnerId owner, LockErrc result) = 0;
  /// The owner's lock was taken from it.
  virtual void lost(OwnerId owner, std::string_view why) = 0;
  /// A watched lock's picture has changed.
  virtual void changed(const Lock& lock) = 0;
};

/// The lock table: decides who holds what among the owners of this mount, and claims from the
/// backend what they need together. One thread; nothing in it waits. The path of a lock:
/// request() checks and tries to grant; if it cannot, the request waits in its lock's queue;
/// advance(), after whatever could let a waiter go, grants those whose turn it is, each under a
/// claim that covers it.
class LockTable final : public ClaimEvents {
 public:
  LockTable(TimerQueue& timers, Processes& processes, LockObserver& observer);
  ~LockTable() override;
  LockTable(const LockTable&) = delete;
  LockTable& operator=(const LockTable&) = delete;

  using Done = std::function<void(LockErrc)>;

  /// `backend` outlives the table and is started by it.
  Lockspace& add_lockspace(std::string name, LockBackend& backend);
  Lockspace* find_lockspace(std::string_view name);
  Lockspace* find_lockspace(uint32_t id);
  /// kBusy while it has owners or pins.
  LockErrc remove_lockspace(Lockspace& space);
  /// Takes part in the lockspace on the other nodes too, where the backend asks for that. `done` is
  /// called once, perhaps before this returns; kUnreachable or kTimedOut: try again, or leave.
  void join_lockspace(Lockspace& space, const Done& done);
  /// The end of a lockspace, as remove_lockspace(), and of our part in it. Without an answer it is
  /// gone here all the same. With `force` who holds in it, here or by others of this host, loses.
  void leave_lockspace(Lockspace& space, bool force, const Done& done);
  /// How long a join may take: a cluster that changes needs seconds.
  static constexpr Duration kJoinTime = std::chrono::seconds(10);
  const std::map<uint32_t, std::unique_ptr<Lockspace>>& lockspaces() const { return spaces_; }

  /// The record of that name, or null when nothing is known of it: free, and of no interest.
  Lock* find(Lockspace& space, std::string_view name);

  /// A new owner, which holds nothing yet.
  OwnerId open(Lockspace& space, std::string_view name, Client client, uint64_t tag = 0);
  /// Reports changed() for this lock from now on, while anybody has it open.
  void watch(Lock& lock) { lock.watched = true; }
  const Owner* find(OwnerId owner) const { return owners_.find(owner); }
  /// Ends the owner and all it holds or waits for; with `linger` what it holds stays that long.
  /// An open wait is not answered any more.
  void close(OwnerId owner);

  /// Acquire or convert. The answer, or nullopt: the request waits, and answered() will tell.
  /// An owner that waits already gets kBusy.
  std::optional<LockErrc> request(OwnerId owner, Request request, Client client);
  /// Ends a wait with answered(kInterrupted), unless it has ended. Its place is kept for a
  /// second: a system call that the kernel restarts goes on where it was.
  void cancel(OwnerId owner);
  /// Gives up what the owner holds, and forgets a loss. Its waiting conversion becomes a request.
  void release(OwnerId owner);
  /// Takes a grant back that could not be delivered: what was held before is held again.
  void undo(OwnerId owner);
  /// Starts the ttl anew, with a new length if given. kInvalid without a ttl to renew.
  LockErrc renew(OwnerId owner, std::optional<Duration> ttl);
  /// Moves what lingers under this key to `owner`. kNotFound, kNotYours, or kBusy if it is open.
  LockErrc resume(OwnerId owner, std::string_view key, Client client);
  /// All who hold the lock lose it. Returns how many.
  size_t break_lock(Lock& lock, std::string_view why);

  /// Pins a name for all nodes, in the name of `pin.uid`, or changes its pin. With `fresh`, kExists
  /// when it has one. `done` is called once, perhaps before this returns.
  void pin(Lockspace& space, std::string_view name, const Pin& pin, bool fresh, const Done& done);
  /// kNotFound without a pin.
  void unpin(Lockspace& space, std::string_view name, const Done& done);
  /// Looks beyond this node: `told` gets what other nodes have of the name, and the record's pin is
  /// then theirs. kUnreachable, or kTimedOut when there was no answer for kLookTime. `told` is
  /// called once, perhaps before this returns.
  using Seen = std::function<void(LockErrc, const RemoteLock&)>;
  void look(Lockspace& space, std::string_view name, const Seen& told);
  /// The same for all names of the lockspace, which may take others longer to tell.
  using SeenAll = std::function<void(LockErrc, const std::vector<RemoteLock>&)>;
  void look_all(Lockspace& space, const SeenAll& told, Duration patience = kLookAllTime);
  static constexpr Duration kLookTime = std::chrono::milliseconds(500);
  static constexpr Duration kLookAllTime = std::chrono::seconds(2);
  /// Who would not wait waits for the answer to a claim that was asked for before, but no longer
  /// than this: then it is told kUnreachable.
  static constexpr Duration kImpatience = std::chrono::seconds(1);
  /// A backend is told who holds under a claim once it was held that long: who holds for
  /// microseconds only is not worth telling.
  static constexpr Duration kDescribeAfter = std::chrono::milliseconds(1);
  /// When another node waits for a claim, so many more are granted under it here before newcomers
  /// stand back until it was given up: a hand-over between nodes costs several within one. Where
  /// turns are strict, only those who wait here already: they have asked before.
  static constexpr uint32_t kLocalTurns = 8;
  /// As long as that somebody here holds on, newcomers stand back so long, and then as many go on:
  /// the other node may have given up, and not every backend says so.
  static constexpr Duration kStandBack = std::chrono::milliseconds(500);
  /// A deadlock over several nodes that is one is still there so much later. What a node has been
  /// told to give up, as when a process was killed, others may believe to wait for an instant more.
  static constexpr Duration kSecondLook = std::chrono::milliseconds(100);

  void write_lvb(Lock& lock, std::string_view value);

  void granted(ClaimId claim, Mode mode, TokenBlock tokens) override;
  void value(ClaimId claim, const LockValue& value) override;
  void failed(ClaimId claim, LockErrc why) override;
  void contended(ClaimId claim) override;
  void uncontended(ClaimId claim) override;
  void lost(ClaimId claim, std::string_view why) override;
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock> locks) override;
  void reach_changed() override;
  /// Answers, with kUnreachable, all questions that their backends have not answered.
  void end_queries();

  /// All waits, with whom each waits for and whether it is part of a cycle.
  std::vector<WaitForGraph::Row> waits() const { return graph_.rows(); }
  /// Fills in an owner's process, found by whoever looked.
  void set_process(OwnerId owner, pid_t process);

  /// What happened lately, for those who watch.
  Journal journal;
  /// The counts of the lockspaces beyond kCountedApart that are no more.
  SpaceStats former;
  UserQuota quota;
  /// How many records of free, unpinned names are kept for their statistics.
  size_t idle_limit = 10000;
  /// This host's name, for those who read of our claims elsewhere.
  std::string host;
  size_t idle() const { return idle_count_; }

 private:
  // Opened by every entry from outside. When the outermost one closes, all work is done, and what
  // happened is told; what the observer then asks for is told in the same loop.
  class Delivery {
   public:
    explicit Delivery(LockTable& table) : table_(table) { ++table_.depth_; }
    Delivery(const Delivery&) = delete;
    Delivery& operator=(const Delivery&) = delete;
    ~Delivery();

   private:
    LockTable& table_;
  };
  struct Event {
    OwnerId owner = OwnerId::kNone;
    LockErrc result = LockErrc::kOk;
    std::string lost_why;
    bool is_loss = false;
  };

  void deliver();
  Lock& record(Lockspace& space, std::string_view name);
  std::optional<LockErrc> check(Owner& owner, const Request& request);
  std::optional<LockErrc> decide(Owner& owner, Request request, Client client);
  static bool fits_at_once(const Lock& lock, const Owner& owner, Share want);
  std::optional<LockErrc> enqueue(Owner& owner, Request request, Client client, bool converting);
  std::optional<LockErrc> claim_for(Lock& lock, Owner& owner, const Request& request);
  void acquire(Claim& claim, Mode mode, SlotClaim slots, bool now);
  void ask_backend(Claim& claim, bool now);
  bool give_up_in_vain(const Claim& claim);
  bool doubts(Claim& claim);
  void look_again(Claim& claim);
  bool end_doubt(Claim& claim);
  void forget(Claim& claim);
  LockErrc grant(Owner& owner, Request& request, Client client, const Wait* waited);
  void grant_waiter(Owner& owner);
  void apply_options(Owner& owner, Request& request);
  void finish_wait(Owner& owner);
  void fail_wait(Owner& owner, LockErrc result);
  void end_wait(Owner& owner, LockErrc result);
  void drop(Owner& owner);
  void lose(Owner& owner, std::string_view why, Happening::Kind kind);
  size_t lose_all(Lock& lock, std::string_view why, Happening::Kind kind);
  void erase(Owner& owner);
  void advance(Lock& lock);
  bool settle_claim(Lock& lock);
  void give_up(Lock& lock);
  Claim& claim_of(Lock& lock);
  void anchor(Lock& lock);
  bool yields(const Lock& lock, const Owner& owner) const;
  bool gives_turn(const Lock& lock) const;
  static bool strict_turns(const Claim& claim);
  void stand_back(Claim& claim);
  bool is_for_patient(const Claim& claim) const;
  bool asks_patiently(const Lock& lock) const;
  bool refuse_impatient(Lock& lock);
  void collect(Lock& lock);
  Happening& note(Happening::Kind kind, const Lock& lock, Share share, const Client& client);
  void note_grant(const Owner& owner, bool had, const Wait* waited);
  void note_end_of_hold(const Owner& owner, Happening::Kind kind, std::string_view why);
  void note_wait(const Owner& owner);
  void note_end_of_wait(Lock& lock, const Wait& wait, LockErrc result);
  void note_refusal(const Owner& owner, const Client& client, Share want, LockErrc result);
  void note_trouble(Lockspace& space);
  void unlink_idle(Lock& lock);
  void note_change(Lock& lock);
  void start_ttl(Owner& owner);
  OwnerExtras& extras(Owner& owner);
  void stop_timer(OwnerExtras& extras);
  using Told = std::function<void(LockErrc, std::vector<RemoteLock>)>;
  QueryId ask(Told told, Duration patience = kLookTime);
  void set_pin(Lockspace& space, std::string_view name, const std::optional<Pin>& pin);
  void describe_claims();
  void learn_pins(Lockspace& space, const std::vector<RemoteLock>& locks);

  TimerQueue& timers_;
  Processes& processes_;
  LockObserver& observer_;
  std::map<uint32_t, std::unique_ptr<Lockspace>> spaces_;
  uint32_t last_space_ = 0;
  SlotMap<OwnerId, Owner> owners_;
  SlotMap<ClaimId, Claim> claims_;
  const Lock* out_of_reach_ = nullptr;  ///< While failed() says so of it to all who wait.
  std::vector<ClaimId> undescribed_;
  struct Query {
    Told told;
    TimerId timer = TimerId::kNone;
  };
  SlotMap<QueryId, Query> queries_;
  std::unordered_map<std::string, OwnerId> keys_;  ///< Of the owners that may linger.
  std::vector<LockBackend*> started_;
  WaitForGraph graph_;
  uint64_t last_sequence_ = 0;
  std::deque<Event> events_;
  std::vector<Lock*> changed_;
  int depth_ = 0;
  Lock* idle_first_ = nullptr;
  Lock* idle_last_ = nullptr;
  size_t idle_count_ = 0;
};

}  // namespace lockfs
