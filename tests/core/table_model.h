// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lockfs::model {

/// A lock table that is slow and plain: vectors, looked through from end to end. It is written
/// from the rules in the design, shares no code with core/, and has words of its own for modes and
/// answers, so that a mistake there is not a mistake here.

using Time = int64_t;  ///< Nanoseconds.

/// "NL" .. "EX", or "SLOT n" as the size n.
struct Wish {
  int mode = 0;   ///< 0 NL, 1 CR, 2 CW, 3 PR, 4 PW, 5 EX; unused with slots.
  int slots = 0;  ///< Size of the semaphore, 0: a mode.
  friend bool operator==(const Wish&, const Wish&) = default;
  bool counts() const { return slots != 0 || mode != 0; }  ///< Above NL.
};

enum class Answer {
  kGranted,
  kWaits,
  kWouldBlock,
  kTimedOut,
  kInterrupted,
  kDeadlock,
  kInvalid,
  kBusy,
  kLost,
  kNotFound,
  kNotYours
};

struct Ask {
  Wish wish;
  bool now = false;
  bool drop_first = false;
  Time timeout = -1;  ///< -1: none; as the two below.
  Time ttl = -1;
  Time linger = -1;
};

struct Event {
  int owner = 0;
  Answer answer = Answer::kGranted;
  bool loss = false;  ///< What it held was taken from it; `answer` is kLost.
  friend bool operator==(const Event&, const Event&) = default;
};

/// The rules that a mutant breaks, to prove that the comparison would see it.
struct Rules {
  std::array<std::array<bool, 6>, 6> together{{
      //  NL    CR     CW     PR     PW     EX
      {true, true, true, true, true, true},       // NL
      {true, true, true, true, true, false},      // CR
      {true, true, true, false, false, false},    // CW
      {true, true, false, true, false, false},    // PR
      {true, true, false, false, false, false},   // PW
      {true, false, false, false, false, false},  // EX
  }};
  bool fair = true;  ///< Nobody overtakes whom it would have to wait behind.
  bool conversions_first = true;
  bool refuses_ring = true;  ///< Of conversions.
  bool keeps_place = true;   ///< Of an interrupted wait.
  bool last_in_first_out = false;
  bool release_wakes = true;
  bool slot_limit = true;
};

struct Owner {
  int lock = 0;
  bool exists = true;
  bool closed = false;
  bool lost = false;
  std::optional<Wish> held;
  std::optional<Wish> before;  ///< The last grant.
  Time ttl = -1, linger = -1;
  Time ends = -1;         ///< When what it holds ends, by ttl or linger.
  uint64_t ends_set = 0;  ///< Which timer was set first.
  std::optional<Ask> waiting;
  bool converting = false;
  uint64_t place = 0;
  Time deadline = -1;
  uint64_t deadline_set = 0;
  uint64_t kept_place = 0;
  Time kept_until = 0;
};

struct Stats {
  uint64_t grants = 0, contended = 0, timeouts = 0, deadlocks = 0, lost = 0;
};

class Table {
 public:
  Table(int locks, Rules rules)
      : rules_(rules), holders_(static_cast<size_t>(locks)), stats_(static_cast<size_t>(locks)) {}

  int open(int lock);
  void close(int owner);
  Answer request(int owner, const Ask& ask);
  void cancel(int owner);
  void release(int owner);
  void undo(int owner);
  Answer renew(int owner, Time ttl);
  Answer resume(int owner, int old, bool same_user);
  int break_lock(int lock);
  void pass(Time time);

  /// What was told since the last call.
  std::vector<Event> take_events();
  const Owner& owner(int id) const { return owners_[static_cast<size_t>(id)]; }
  const std::vector<int>& holders(int lock) const { return holders_[static_cast<size_t>(lock)]; }
  /// In the order of their turns.
  std::vector<int> waiters(int lock) const;
  const Stats& stats(int lock) const { return stats_[static_cast<size_t>(lock)]; }

 private:
  Owner& at(int id) { return owners_[static_cast<size_t>(id)]; }
  Stats& count(int lock) { return stats_[static_cast<size_t>(lock)]; }
  bool goes_with(const Wish& a, const Wish& b) const;
  bool fits(int lock, int asker, const Wish& wish) const;
  bool must_wait_behind(const Wish& wish, const Wish& earlier) const;
  bool ring(int asker, const Wish& wish) const;
  bool other_size_in_use(int lock, int size) const;
  void grant(int id, const Ask& ask);
  void hold(int id, const Wish& wish);
  void let_go(int id);
  void lose(int id);
  void stop_waiting(int id);
  void wake(int lock);
  bool run_first_timer();

  Rules rules_;
  Time now_ = 0;
  uint64_t last_place_ = 0;
  uint64_t last_timer_ = 0;
  std::vector<Owner> owners_;
  std::vector<int> live_;  ///< Owners that exist.
  std::vector<std::vector<int>> holders_;
  std::vector<Stats> stats_;
  std::vector<Event> events_;
};

}  // namespace lockfs::model
