// SPDX-License-Identifier: MIT
#pragma once
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/dlm/cluster.h"
#include "backends/dlm/group.h"
#include "backends/dlm/kernel_locks.h"
#include "backends/dlm/shared_pins.h"
#include "backends/dlm/tokens.h"
#include "backends/loop_thread.h"
#include "backends/outlet.h"
#include "core/lock.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `dlm:`, the distributed lock manager of the Linux kernel: a lockspace is one of the DLM's, a
/// claim is one of its locks, converted in place. What was released is kept until another node
/// wants it, or for kKeepTime. Who holds a lock the DLM does not tell: the mounts ask each other,
/// by corosync, and keep the pins together.
///
/// The loop owns everything here. Two threads do what may wait: one speaks to the DLM
/// (KernelLocks), one to corosync (Groups); tasks go down to them in order, events come up by the
/// outlet.
class DlmBackend final : public LockBackend {
 public:
  /// A program that only ever tries could not get what is kept, and a mount that is stopped gives
  /// nothing back: so long after its last use it is given up, and so is a counter of tokens.
  static constexpr auto kKeepTime = std::chrono::seconds(10);
  static constexpr size_t kMaxKept = 4096;
  /// How long one who would not wait waits for the cluster, before kUnreachable.
  static constexpr auto kPatience = std::chrono::seconds(1);
  /// How long the other mounts may take to say who holds a lock, or to give it back.
  static constexpr auto kAskTime = std::chrono::milliseconds(300);
  /// The same for all that they hold: nobody's open() waits for it, and hundreds of names took a
  /// mount of an emulated machine longer than kAskTime.
  static constexpr auto kListTime = std::chrono::seconds(1);
  /// How long a mount that has just come waits for the pins before it asks all for them.
  static constexpr auto kPinsTime = std::chrono::milliseconds(100);
  /// How often one who would not wait tries, while the others give back what they only keep.
  static constexpr int kAttempts = 3;

  /// `prefix` goes before a lockspace's name, to make the DLM's. `loop` outlives this.
  DlmBackend(EventLoop& loop, std::string prefix);
  /// Waits for the DLM thread, which may sleep as long as the cluster recovers.
  ~DlmBackend() override;
  DlmBackend(const DlmBackend&) = delete;
  DlmBackend& operator=(const DlmBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
  void join(QueryId query, std::string_view lockspace, mode_t mode) override;
  void leave(QueryId query, std::string_view lockspace, bool force) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void set_value(ClaimId claim, const LockValue& value) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  using LockNo = dlm::LockNo;
  using Member = dlm::Member;
  using Message = dlm::Message;
  class KernelEvents;
  class GroupTold;
  struct Space;

  struct Want {
    Mode mode = Mode::kNL;
    bool now = false;
  };
  /// What is under way in the DLM for a resource.
  enum class Busy {
    kNo,
    kClaim,  ///< An acquire for its claim.
    kOwn,    ///< One of ours: a look, giving back, storing.
    kCount,  ///< Nothing: the grant is there, and waits for its token.
  };
  struct Looker {
    QueryId query = QueryId::kNone;
    bool again = false;  ///< The others were asked already, and said nothing.
  };
  /// One lock of the DLM that this mount has, or asks for; one at a time for each name.
  struct Resource {
    Space* space = nullptr;
    std::string name;
    LockNo no = LockNo::kNone;       ///< kNone: only the anchor, or yet to be asked for.
    LockNo anchor = LockNo::kNone;   ///< Another one in NL, for the value block's sake.
    ClaimId claim = ClaimId::kNone;  ///< Whom it serves; without: it is kept, or only looked at.
    Mode held = Mode::kNL;           ///< In the DLM, by `no`.
    Mode told = Mode::kNL;           ///< To the table: no more than what is held.
    Busy busy = Busy::kNo;
    Want asked;                ///< By what is under way.
    std::optional<Want> next;  ///< What the claim asked for meanwhile.
    int attempts = 0;
    uint64_t deaths = 0;             ///< Of nodes, when it was asked for.
    uint64_t count = 0;              ///< Tells a token that is waited for from one before.
    bool wanted = false;             ///< Somebody waits for what is held.
    LockValue value;                 ///< The value block as we know it.
    std::optional<LockValue> write;  ///< What is yet to be stored.
    Presence who;
    TimerId patience = TimerId::kNone;
    std::vector<Looker> lookers;                   ///< They wait for the end of our look.
    std::vector<std::function<void()>> after_own;  ///< And these for that of giving back.
    bool kept = false;
    TimePoint kept_since;
    std::list<Resource*> node = {
        this};  ///< Its place in the list of what is kept, while it is not.
    std::list<Resource*>::iterator place = node.begin();

    bool idle() const { return busy == Busy::kNo; }
    bool bare() const { return told == Mode::kNL && anchor == LockNo::kNone; }
  };
  using Replies = std::vector<dlm::Told>;
  using Answered = std::function<void(const Replies&)>;
  /// Asked of all mounts of a lockspace.
  struct Question {
    Space* space = nullptr;
    std::optional<std::set<Member>> missing;  ///< None until we hear ourselves ask.
    Replies replies;
    Answered done;
    TimerId timer = TimerId::kNone;
  };
  struct Space {
    std::string name;   ///< In the DLM.
    bool left = false;  ///< It ends: nobody is to be asked any more.
    std::unordered_map<std::string, Resource, Lockspace::Hash, std::equal_to<>> resources;
    Member self;
    std::vector<Member> members;
    uint64_t deaths = 0;      ///< Of nodes, that we have seen.
    std::set<Member> buried;  ///< Members that went with their nodes.
    std::set<Member> silent;  ///< They did not answer in time, and were not heard since.
    dlm::SharedPins pins;
    bool asks_for_pins = false;
    std::vector<std::pair<QueryId, std::function<void()>>> until_known;
    std::set<QueryId> pinning;  ///< On their way to all members and back.
  };

  // dlm_backend.cc
  Space& space_of(std::string_view lockspace);
  void watch_cluster();
  void quorum(bool quorate, bool unfenced);
  void distrust_kept();
  void lose_claims(const std::string& why);
  void lose_all(const std::string& why);
  void drop_all(Space& space);
  void forget_group(Space& space);
  void refuse(QueryId query);

  // dlm_backend_grants.cc
  Resource* find(Space& space, std::string_view name);
  Resource& make(Space& space, std::string_view name);
  void number(Resource& resource);
  void forget_number(Resource& resource);
  void start(Resource& resource, Want want);
  void request(Resource& resource, Busy whose, Want want);
  void submit(Resource& resource);
  void grant(Resource& resource, Mode mode);
  void granted_with(ClaimId claim, uint64_t count, Mode mode, uint64_t token);
  void fail(Resource& resource, LockErrc why);
  void settle(Resource& resource);
  void own_ended(Resource& resource);
  void own_refused(Resource& resource);
  void anchored(Resource& resource);
  void out_of_patience(ClaimId claim);
  void detach(Resource& resource);
  void release_lock(LockNo no, const std::optional<LockValue>& write);
  void keep(Resource& resource);
  void unkeep(Resource& resource);
  void expire_later();
  void expire();
  void drop(Resource& resource);
  void erase(Resource& resource);
  // Events of the kernel's locks.
  void granted(LockNo no, Mode mode, const LockValue& value);
  void refused(LockNo no, LockErrc why);
  void blocking(LockNo no);
  void gone(LockNo no);

  // dlm_backend_looks.cc
  void look(Looker looker, Space& space, const std::string& name);
  void look_refused(Resource& resource, LockErrc why);
  void answer(QueryId query, Space& space, const std::string& name, const Replies& replies,
              bool foreign);
  void send_pin(Space& space, Message message);
  void when_known(Space& space, QueryId query, std::function<void()> work);
  void ask(Space& space, const std::string& name, Answered done);
  void answered_by(uint64_t number, Member who);
  void finish(uint64_t number);
  std::vector<uint64_t> questions_of(const Space& space) const;
  void send(const Space& space, const Message& message);
  dlm::Told told_of(const Resource& resource) const;
  void be_known(Space& space);
  void say_pins(const Space& space, Member to);
  void say_floors(const Space& space, const std::vector<std::pair<size_t, uint64_t>>& floors);
  void tell(const Space& space, Member to, uint64_t number, Replies locks);
  void answer_ask(Space& space, Member from, const Message& message);
  void heard(const std::string& dlm_name, Member from, const Message& message);
  void members(const std::string& dlm_name, Member self, const dlm::Membership& now, bool doubtful);
  void two_halves_met(uint32_t node);

  EventLoop& loop_;
  std::string prefix_;
  std::string host_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  bool broken_ = false;  ///< dlm_controld has ended.
  bool quorate_ = true;  ///< Nothing is granted without.
  uint64_t last_number_ = 0;
  std::map<std::string, Space, std::less<>> spaces_;  ///< By their names in the DLM.
  std::unordered_map<LockNo, Resource*> by_number_;
  std::unordered_map<ClaimId, Resource*> claims_;
  std::set<ClaimId> interrupted_;  ///< Yet to be told.
  std::list<Resource*> kept_;      ///< The longest kept first.
  TimerId expiry_ = TimerId::kNone;
  std::unordered_map<LockNo, std::function<void()>> when_gone_;
  std::map<uint64_t, Question> questions_;
  dlm::Tokens tokens_;

  std::shared_ptr<Outlet> outlet_;
  std::unique_ptr<KernelEvents> kernel_events_;
  std::unique_ptr<GroupTold> group_events_;
  std::unique_ptr<dlm::KernelLocks> kernel_;  ///< On kernel_thread_ only.
  // On group_thread_ only:
  std::unique_ptr<dlm::Groups> group_;
  std::unique_ptr<dlm::ControldWatch> controld_;
  std::unique_ptr<dlm::QuorumWatch> quorum_watch_;
  dlm::RingSequence ring_;
  LoopThread kernel_thread_;
  LoopThread group_thread_;
};

}  // namespace lockfs
