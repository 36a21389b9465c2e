// SPDX-License-Identifier: MIT
#include "tests/core/model_run.h"

#include <algorithm>
#include <deque>
#include <random>
#include <sstream>
#include <utility>

#include "backends/memory.h"
#include "core/lock_table.h"
#include "tests/core/model_words.h"
#include "tests/core/table_invariants.h"

namespace lockfs::model {
namespace {

constexpr int kLocks = 3;
constexpr size_t kOwners = 14;      ///< At one time, over all locks: crowded enough to queue.
constexpr size_t kRemembered = 30;  ///< Operations printed with a difference.

struct NoProcesses final : Processes {
  pid_t process_of(pid_t) override { return 0; }
  bool sole_releaser(pid_t, TimePoint, uint64_t, size_t) override { return false; }
  ProcessInfo describe(pid_t) override { return {}; }
};

struct Told final : LockObserver {
  void answered(OwnerId owner, LockErrc result) override {
    events.push_back({owner, result, false});
  }
  void lost(OwnerId owner, std::string_view) override {
    events.push_back({owner, LockErrc::kLost, true});
  }
  void changed(const Lock&) override {}
  struct Event {
    OwnerId owner;
    LockErrc result;
    bool loss;
  };
  std::vector<Event> events;
};

std::optional<Duration> maybe(Time time) {
  if (time < 0) return std::nullopt;
  return Duration(time);
}

class Run {
 public:
  Run(uint64_t seed, const Rules& rules)
      : random_(seed),
        model_(kLocks, rules),
        table_(timers_, processes_, told_),
        space_(table_.add_lockspace("default", memory_)) {}

  Outcome run(uint64_t operations);

 private:
  uint64_t pick(uint64_t below) { return random_() % below; }
  bool one_in(uint64_t n) { return pick(n) == 0; }
  static std::string name(int lock) { return std::string(1, static_cast<char>('a' + lock)); }
  void note(const std::string& text) {
    history_.push_back(text);
    if (history_.size() > kRemembered) history_.pop_front();
  }
  void differ(const std::string& what) {
    if (outcome_.difference.empty()) outcome_.difference = what;
  }
  void same(Answer model, Answer table, const char* verb) {
    if (model == table) return;
    differ(std::string(verb) + ": model answers " + std::to_string(static_cast<int>(model)) +
           ", table " + std::to_string(static_cast<int>(table)));
  }
  std::string describe(int owner, const Ask& ask) const;
  Ask random_ask();
  void step();
  void do_open();
  void do_request(int owner);
  void do_resume(int owner);
  void do_renew(int owner);
  void do_pass(Time time);
  void undo_some(const std::vector<int>& granted);
  std::vector<int> compare_events();
  void compare_lock(int lock);
  void compare_holders(int lock, const Lock* real);
  void compare_tokens(const Lock& real);
  void forget_dead();

  std::mt19937_64 random_;
  Table model_;
  MemoryBackend memory_;
  TimerQueue timers_;
  NoProcesses processes_;
  Told told_;
  LockTable table_;
  Lockspace& space_;
  std::vector<OwnerId> ids_;  ///< By the model's number.
  std::map<OwnerId, int> numbers_;
  std::vector<int> open_;  ///< Owners that a user has open.
  std::vector<int> lingering_;
  JournalTally tally_;
  std::array<uint64_t, kLocks> last_token_{};
  std::deque<std::string> history_;
  Outcome outcome_;
};

std::string Run::describe(int owner, const Ask& ask) const {
  std::ostringstream out;
  out << "request " << owner << " on " << name(model_.owner(owner).lock) << ' ' << words(ask.wish);
  if (ask.now) out << " try";
  if (ask.drop_first) out << " drop_first";
  if (ask.timeout >= 0) out << " timeout=" << ask.timeout;
  if (ask.ttl >= 0) out << " ttl=" << ask.ttl;
  if (ask.linger >= 0) out << " linger=" << ask.linger;
  return out.str();
}

Ask Run::random_ask() {
  Ask ask;
  ask.wish.mode = static_cast<int>(pick(6));
  if (one_in(6)) ask.wish = {0, 2 + static_cast<int>(one_in(8))};
  ask.now = one_in(5);
  ask.drop_first = one_in(12);
  if (one_in(6)) ask.timeout = static_cast<Time>(pick(2000000000));
  if (one_in(6)) ask.ttl = static_cast<Time>(pick(4000000000));
  if (one_in(6)) ask.linger = static_cast<Time>(pick(2000000000));
  return ask;
}

void Run::do_open() {
  const int lock = static_cast<int>(pick(kLocks));
  const int owner = model_.open(lock);
  const OwnerId id = table_.open(space_, name(lock), {0, 1000, 1000});
  ids_.push_back(id);
  numbers_[id] = owner;
  open_.push_back(owner);
  note("open " + std::to_string(owner) + " on " + name(lock));
}

void Run::do_request(int owner) {
  const Ask ask = random_ask();
  note(describe(owner, ask));
  if (model_.owner(owner).kept_place != 0 && !ask.now) ++outcome_.restarts;
  const Answer expected = model_.request(owner, ask);
  Request request;
  request.want = share_of(ask.wish);
  request.now = ask.now;
  request.drop_first = ask.drop_first;
  request.timeout = maybe(ask.timeout);
  request.ttl = maybe(ask.ttl);
  request.linger = maybe(ask.linger);
  const auto id = ids_[static_cast<size_t>(owner)];
  same(expected, answer_of(table_.request(id, request, {0, 1000, 1000})), "request");
  if (expected == Answer::kWaits) ++outcome_.waits;
  if (expected == Answer::kDeadlock) ++outcome_.deadlocks;
  if (expected == Answer::kGranted && one_in(12)) undo_some({owner});
}

void Run::do_resume(int owner) {
  if (lingering_.empty()) return;
  const int old = lingering_[pick(lingering_.size())];
  const Owner& left = model_.owner(old);
  const lockfs::Owner* real = table_.find(ids_[static_cast<size_t>(old)]);
  if (!left.exists || real == nullptr || !real->extras) return;
  const bool same_user = !one_in(4);
  const uid_t uid = same_user ? 1000 : 1001;
  note("resume " + std::to_string(old) + " as " + std::to_string(owner));
  const std::string key = real->extras->key;
  const Answer expected = model_.resume(owner, old, same_user);
  same(expected, answer_of(table_.resume(ids_[static_cast<size_t>(owner)], key, {0, uid, uid})),
       "resume");
  if (expected == Answer::kGranted) ++outcome_.resumed;
}

void Run::do_renew(int owner) {
  const Time ttl = one_in(2) ? static_cast<Time>(pick(4000000000)) : -1;
  note("renew " + std::to_string(owner) + " ttl=" + std::to_string(ttl));
  same(model_.renew(owner, ttl),
       answer_of(table_.renew(ids_[static_cast<size_t>(owner)], maybe(ttl))), "renew");
}

void Run::do_pass(Time time) {
  note("pass " + std::to_string(time));
  model_.pass(time);
  timers_.advance(timers_.now() + Duration(time));
}

// A grant that cannot be delivered is taken back before anything else happens.
void Run::undo_some(const std::vector<int>& granted) {
  for (const int owner : granted) {
    note("undo " + std::to_string(owner));
    ++outcome_.undone;
    model_.undo(owner);
    table_.undo(ids_[static_cast<size_t>(owner)]);
  }
}

void Run::step() {
  if (open_.size() < 3 || (open_.size() < kOwners && one_in(5))) return do_open();
  const int owner = open_[pick(open_.size())];
  const OwnerId id = ids_[static_cast<size_t>(owner)];
  const uint64_t what = pick(100);
  if (what < 55) return do_request(owner);
  if (what < 68) {
    note("release " + std::to_string(owner));
    model_.release(owner);
    return table_.release(id);
  }
  if (what < 78) {
    note("close " + std::to_string(owner));
    std::erase(open_, owner);
    model_.close(owner);
    table_.close(id);
    if (model_.owner(owner).exists) lingering_.push_back(owner);
    return;
  }
  if (what < 86) {
    note("cancel " + std::to_string(owner));
    model_.cancel(owner);
    return table_.cancel(id);
  }
  if (what < 89) return do_renew(owner);
  if (what < 92) return do_resume(owner);
  if (what < 93) {
    const int lock = model_.owner(owner).lock;
    note("break " + name(lock));
    const auto broken = static_cast<size_t>(model_.break_lock(lock));
    if (table_.break_lock(*table_.find(space_, name(lock)), "x") != broken) differ("break: count");
    return;
  }
  do_pass(static_cast<Time>(pick(300000000)));
}

// Compares what was told, and returns who was granted something.
std::vector<int> Run::compare_events() {
  std::vector<int> granted;
  const std::vector<Event> expected = model_.take_events();
  std::vector<Event> got;
  for (const auto& event : std::exchange(told_.events, {})) {
    got.push_back({numbers_.at(event.owner), answer_of(event.result), event.loss});
  }
  if (expected != got) {
    std::ostringstream out;
    const auto list = [&out](const std::vector<Event>& events) {
      for (const Event& e : events) {
        out << ' ' << e.owner << ':' << (e.loss ? "lost " : "") << static_cast<int>(e.answer);
      }
    };
    out << "told: model";
    list(expected);
    out << ", table";
    list(got);
    differ(out.str());
  }
  for (const Event& event : expected) {
    if (event.answer == Answer::kGranted) granted.push_back(event.owner);
    if (event.loss) ++outcome_.losses;
  }
  return granted;
}

void Run::compare_holders(int lock, const Lock* real) {
  std::ostringstream expected;
  for (const int holder : model_.holders(lock)) {
    expected << holder << ' ' << words(*model_.owner(holder).held) << ", ";
  }
  expected << "| ";
  for (const int waiter : model_.waiters(lock)) {
    expected << waiter << ' ' << words(model_.owner(waiter).waiting->wish)
             << (model_.owner(waiter).converting ? " converting, " : ", ");
  }
  std::ostringstream got;
  if (real != nullptr) {
    for (const auto* o = real->first; o != nullptr; o = o->next) {
      got << numbers_.at(o->id) << ' ' << words(wish_of(o->held)) << ", ";
    }
  }
  got << "| ";
  if (real != nullptr) {
    for (const auto* o : real->waiting_in_order()) {
      got << numbers_.at(o->id) << ' ' << words(wish_of(o->wait->request.want))
          << (o->wait->converting ? " converting, " : ", ");
    }
  }
  differ("lock " + name(lock) + ": model [" + expected.str() + "], table [" + got.str() + "]");
}

void Run::compare_lock(int lock) {
  const Lock* real = table_.find(space_, name(lock));
  const std::vector<int>& holders = model_.holders(lock);
  const std::vector<int> waiters = model_.waiters(lock);
  if (real == nullptr) {
    if (!holders.empty() || !waiters.empty()) compare_holders(lock, nullptr);
    return;
  }
  size_t i = 0;
  bool equal = true;
  for (const auto* o = real->first; o != nullptr && equal; o = o->next, ++i) {
    equal = i < holders.size() && ids_[static_cast<size_t>(holders[i])] == o->id &&
            *model_.owner(holders[i]).held == wish_of(o->held);
  }
  equal = equal && i == holders.size();
  const auto queue = real->waiting_in_order();
  equal = equal && queue.size() == waiters.size();
  for (i = 0; equal && i < queue.size(); ++i) {
    const Owner& w = model_.owner(waiters[i]);
    equal = ids_[static_cast<size_t>(waiters[i])] == queue[i]->id &&
            w.waiting->wish == wish_of(queue[i]->wait->request.want) &&
            w.converting == queue[i]->wait->converting;
  }
  if (!equal) compare_holders(lock, real);
  const Stats& stats = model_.stats(lock);
  if (stats.grants != real->stats.grants || stats.contended != real->stats.contended ||
      stats.timeouts != real->stats.timeouts || stats.deadlocks != real->stats.deadlocks ||
      stats.lost != real->stats.lost) {
    differ("statistics of " + name(lock));
  }
  if (const std::string broken = broken_invariant(*real); !broken.empty()) {
    differ("lock " + name(lock) + ": " + broken);
  }
  compare_tokens(*real);
}

// Tokens only grow, and a holder's is one that was given.
void Run::compare_tokens(const Lock& real) {
  uint64_t& last = last_token_.at(static_cast<size_t>(real.name().front() - 'a'));
  if (real.token < last) differ("the token went back");
  last = real.token;
  for (const auto* o = real.first; o != nullptr; o = o->next) {
    const bool exclusive = !o->held.is_slot() && is_exclusive(o->held.mode);
    if (o->token > real.token) differ("a token nobody gave");
    if (exclusive && o->token != real.token) differ("the exclusive holder has not the last token");
  }
}

void Run::forget_dead() {
  std::erase_if(lingering_, [this](int owner) { return !model_.owner(owner).exists; });
  for (const int owner : open_) {
    const lockfs::Owner* real = table_.find(ids_[static_cast<size_t>(owner)]);
    if (real == nullptr) return differ("an open owner is gone");
    if (real->lost != model_.owner(owner).lost) differ("owner " + std::to_string(owner) + ": lost");
  }
  for (const int owner : lingering_) {
    if (table_.find(ids_[static_cast<size_t>(owner)]) == nullptr) differ("what lingers is gone");
  }
  if (const std::string broken = broken_invariant(space_); !broken.empty()) differ(broken);
  if (const std::string wrong = tally_.look(table_.journal, space_); !wrong.empty()) differ(wrong);
}

Outcome Run::run(uint64_t operations) {
  while (outcome_.operations < operations && outcome_.difference.empty()) {
    step();
    ++outcome_.operations;
    const std::vector<int> granted = compare_events();
    for (int lock = 0; lock < kLocks; ++lock) compare_lock(lock);
    forget_dead();
    if (granted.size() == 1 && one_in(10) && outcome_.difference.empty()) {
      if (!model_.owner(granted.front()).held) continue;  // Its ttl was over in the same moment.
      undo_some(granted);
      compare_events();
      for (int lock = 0; lock < kLocks; ++lock) compare_lock(lock);
    }
  }
  if (outcome_.difference.empty()) return outcome_;
  std::ostringstream out;
  out << outcome_.difference << "\nafter " << outcome_.operations
      << " operations, the last of which:";
  for (const std::string& line : history_) out << "\n  " << line;
  outcome_.difference = out.str();
  return outcome_;
}

}  // namespace

Outcome run_beside_model(uint64_t seed, uint64_t operations, const Rules& rules) {
  return Run(seed, rules).run(operations);
}

}  // namespace lockfs::model
