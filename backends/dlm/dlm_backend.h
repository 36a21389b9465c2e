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
  /// A program that only ever tries could not get what is kept: so long after its last use it is
  /// given up.
  static constexpr auto kKeepTime = std::chrono::seconds(10);
  static constexpr size_t kMaxKept = 4096;
  /// How long one who would not wait waits for the cluster, before kUnreachable.
  static constexpr auto kPatience = std::chrono::seconds(1);
  /// How long the other mounts may take to say who holds a lock, or to give it back.
  static constexpr auto kAskTime = std::chrono::milliseconds(300);
  /// How long a mount that has just come waits for the pins before it asks all for them.
  static constexpr auto kPinsTime = std::chrono::milliseconds(100);
  /// How often one who would not wait tries, while the others give back what they only keep.
  static constexpr int kAttempts = 3;

  /// `prefix` goes before a lockspace's name, to make the DLM's. `loop` outlives this.
  DlmBackend(EventLoop& loop, std::string prefix);
  ~DlmBackend() override;
  DlmBackend(const DlmBackend&) = delete;
  DlmBackend& operator=(const DlmBackend&) = delete;

  const LockTraits& traits() const override { return traits_; }
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

  struct Want {
    Mode mode = Mode::kNL;
    bool now = false;
  };
  struct Looker {
    QueryId query = QueryId::kNone;
    bool again = false;  ///< The others were asked already, and said nothing.
  };
  /// One lock of the DLM that this mount has, or asks for; one at a time for each name.
  struct Resource {
    std::string space;
    std::string name;
    LockNo no = LockNo::kNone;       ///< kNone: only the anchor, or yet to be asked for.
    ClaimId claim = ClaimId::kNone;  ///< Whom it serves; without: it is kept, or only looked at.
    Mode held = Mode::kNL;           ///< In the DLM.
    Mode told = Mode::kNL;           ///< To the table: no more than what is held.
    LockNo anchor = LockNo::kNone;   ///< Another one in NL, for the value block's sake.
    bool asking = false;             ///< An acquire of `asked` is under way in the DLM.
    bool counting = false;           ///< It is granted, and waits for its token.
    bool own = false;                ///< ... which the table did not ask for.
    Want asked;
    std::optional<Want> next;  ///< What the claim asked for meanwhile.
    int attempts = 0;
    bool wanted = false;   ///< Somebody waits for what is held.
    bool written = false;  ///< `value` is newer than the DLM's.
    LockValue value;
    Presence who;
    TimerId patience = TimerId::kNone;
    std::vector<Looker> lookers;                   ///< They wait for the end of a look.
    std::vector<std::function<void()>> after_own;  ///< The end of what we asked for ourselves.
    bool kept = false;
    std::list<Resource*>::iterator kept_at;
    TimePoint kept_since;
  };
  using Replies = std::vector<dlm::Told>;
  using Answered = std::function<void(const Replies&)>;
  /// Asked of all mounts of a lockspace.
  struct Question {
    std::string space;
    std::optional<std::set<Member>> missing;  ///< None until we hear ourselves ask.
    Replies replies;
    Answered done;
    TimerId timer = TimerId::kNone;
  };
  struct Group {
    Member self;
    std::vector<Member> members;
    dlm::SharedPins pins;
    std::vector<std::function<void()>> until_known;
    bool asks_for_pins = false;
    std::set<Member> silent;  ///< They did not answer in time, and were not heard since.
  };

  // dlm_backend.cc
  Resource* find(const std::string& space, std::string_view name);
  Resource& make(const std::string& space, std::string_view name);
  void request(Resource& resource, Want want);
  void submit(Resource& resource);
  void number(Resource& resource);
  void forget_number(Resource& resource);
  void anchored(Resource& resource);
  void grant(Resource& resource, Mode mode);
  void granted_with(ClaimId claim, Mode mode, uint64_t token);
  void fail(Resource& resource, LockErrc why);
  void out_of_patience(LockNo no);
  void own_ended(Resource& resource);
  void keep(Resource& resource);
  void unkeep(Resource& resource);
  void expire();
  void weaken(Resource& resource);
  void drop(Resource& resource);
  void erase(Resource& resource);
  std::string dlm_name(std::string_view lockspace) const {
    return prefix_ + std::string(lockspace);
  }
  // Events of the kernel's locks.
  void granted(LockNo no, Mode mode, const LockValue& value);
  void refused(LockNo no, LockErrc why);
  void blocking(LockNo no);
  void gone(LockNo no);
  void watch_cluster();
  void quorum(bool quorate, bool unfenced);
  void lose_claims(const std::string& why);
  void lose_all(const std::string& why);

  // dlm_backend_looks.cc
  void look(Looker looker, const std::string& space, const std::string& name);
  void look_refused(Resource& resource, LockErrc why);
  void answer(QueryId query, const std::string& space, const std::string& name,
              const Replies& replies, bool foreign);
  void when_known(const std::string& space, std::function<void()> work);
  void ask(const std::string& space, const std::string& name, Answered done);
  void answered_by(uint64_t number, Member who);
  void finish(uint64_t number);
  void send(const std::string& space, const Message& message);
  dlm::Told told_of(const Resource& resource) const;
  void be_known(const std::string& space);
  void say_pins(const std::string& space, Member to);
  void tell(const std::string& space, Member to, uint64_t number, Replies locks);
  void answer_ask(const std::string& space, Member from, const Message& message);
  void heard(const std::string& space, Member from, const Message& message);
  void members(const std::string& space, Member self, const std::vector<Member>& all,
               const std::vector<Member>& joined, const std::vector<Member>& left);

  EventLoop& loop_;
  std::string prefix_;
  std::string host_;
  LockTraits traits_;
  ClaimEvents* events_ = nullptr;
  bool broken_ = false;  ///< dlm_controld has ended.
  bool quorate_ = true;  ///< Nothing is granted without.
  uint64_t last_number_ = 0;
  std::unordered_map<std::string, Resource> resources_;  ///< By space NUL name.
  std::unordered_map<LockNo, Resource*> by_number_;
  std::unordered_map<ClaimId, Resource*> claims_;
  std::list<Resource*> kept_;  ///< The longest kept first.
  TimerId expiry_ = TimerId::kNone;
  std::unordered_map<LockNo, std::function<void()>> when_gone_;
  std::map<std::string, Group> groups_;
  std::map<uint64_t, Question> questions_;
  dlm::Tokens tokens_;

  std::shared_ptr<Outlet> outlet_;
  std::unique_ptr<KernelEvents> kernel_events_;
  std::unique_ptr<GroupTold> group_events_;
  std::unique_ptr<dlm::ControldWatch> controld_;  ///< On group_thread_ only, as quorum_watch_.
  std::unique_ptr<dlm::QuorumWatch> quorum_watch_;
  std::unique_ptr<dlm::KernelLocks> kernel_;  ///< On kernel_thread_ only.
  std::unique_ptr<dlm::Groups> group_;        ///< On group_thread_ only.
  LoopThread kernel_thread_;
  LoopThread group_thread_;
};

}  // namespace lockfs
