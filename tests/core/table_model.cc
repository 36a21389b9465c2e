// SPDX-License-Identifier: MIT
#include "tests/core/table_model.h"

#include <algorithm>
#include <utility>

namespace lockfs::model {
namespace {

constexpr Time kSecond = 1000000000;

// Does holding `mode` give all that `other` gives: it excludes at least the same modes? Of the two
// that exclude different ones, CW and PR, neither does.
bool gives(int mode, int other) {
  if (mode == 3 && other == 2) return false;
  return mode >= other;
}

// A slot is held by the host as CW.
int mode_of(const Wish& wish) { return wish.slots != 0 ? 2 : wish.mode; }

}  // namespace

bool Table::goes_with(const Wish& a, const Wish& b) const {
  if (!a.counts() || !b.counts()) return true;
  if (a.slots != 0 && b.slots != 0) return true;
  if (a.slots != 0 || b.slots != 0) return false;
  return rules_.together[static_cast<size_t>(a.mode)][static_cast<size_t>(b.mode)];
}

bool Table::fits(int lock, int asker, const Wish& wish) const {
  int slots = 0;
  for (const int holder : holders(lock)) {
    if (holder == asker) continue;
    if (!goes_with(wish, *owner(holder).held)) return false;
    if (owner(holder).held->slots != 0) ++slots;
  }
  return wish.slots == 0 || slots < wish.slots || !rules_.slot_limit;
}

// Whether a slot is free for both cannot be told from their wishes: slots never overtake.
bool Table::must_wait_behind(const Wish& wish, const Wish& earlier) const {
  if (!rules_.fair || !wish.counts()) return false;
  return wish.slots != 0 || !goes_with(wish, earlier);
}

std::vector<int> Table::waiters(int lock) const {
  std::vector<int> all;
  for (const int id : live_) {
    if (owner(id).lock == lock && owner(id).waiting) all.push_back(id);
  }
  std::sort(all.begin(), all.end(), [this](int a, int b) {
    const Owner& x = owner(a);
    const Owner& y = owner(b);
    if (rules_.conversions_first && x.converting != y.converting) return x.converting;
    return rules_.last_in_first_out ? x.place > y.place : x.place < y.place;
  });
  return all;
}

// Would the conversion close a ring of conversions, each waiting for what the next one holds?
bool Table::ring(int asker, const Wish& wish) const {
  if (!rules_.refuses_ring) return false;
  std::vector<std::pair<int, Wish>> nodes = {{asker, wish}};
  for (const int id : waiters(owner(asker).lock)) {
    if (owner(id).converting) nodes.emplace_back(id, owner(id).waiting->wish);
  }
  const size_t n = nodes.size();
  std::vector<std::vector<bool>> reach(n, std::vector<bool>(n));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      reach[i][j] = i != j && !goes_with(nodes[i].second, *owner(nodes[j].first).held);
    }
  }
  for (size_t k = 0; k < n; ++k) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        if (reach[i][k] && reach[k][j]) reach[i][j] = true;
      }
    }
  }
  return reach[0][0];
}

bool Table::other_size_in_use(int lock, int size) const {
  for (const int id : live_) {
    const Owner& o = owner(id);
    if (o.lock != lock) continue;
    if (o.held && o.held->slots != 0 && o.held->slots != size) return true;
    if (o.waiting && o.waiting->wish.slots != 0 && o.waiting->wish.slots != size) return true;
  }
  return false;
}

int Table::open(int lock) {
  owners_.emplace_back().lock = lock;
  live_.push_back(static_cast<int>(owners_.size()) - 1);
  return live_.back();
}

void Table::hold(int id, const Wish& wish) {
  auto& list = holders_[static_cast<size_t>(at(id).lock)];
  std::erase(list, id);
  list.push_back(id);
  at(id).held = wish;
}

void Table::let_go(int id) {
  std::erase(holders_[static_cast<size_t>(at(id).lock)], id);
  Owner& o = at(id);
  o.held.reset();
  o.ttl = o.linger = o.ends = -1;
}

void Table::stop_waiting(int id) {
  at(id).waiting.reset();
  at(id).converting = false;
  at(id).deadline = -1;
}

void Table::grant(int id, const Ask& ask) {
  Owner& o = at(id);
  const bool same = o.held && *o.held == ask.wish;
  o.before = o.held;
  if (!same) hold(id, ask.wish);
  if (!same && ask.wish.counts()) ++count(o.lock).grants;
  o.ttl = ask.ttl;
  o.linger = ask.linger;
  o.ends = ask.ttl >= 0 ? now_ + ask.ttl : -1;
  if (o.ends >= 0) o.ends_set = ++last_timer_;
}

// Lets go all whose turn it is, the first first.
void Table::wake(int lock) {
  for (bool again = true; again;) {
    again = false;
    std::vector<Wish> earlier;
    for (const int id : waiters(lock)) {
      Owner& o = at(id);
      const Wish wish = o.waiting->wish;
      const bool behind =
          !o.converting && std::any_of(earlier.begin(), earlier.end(),
                                       [&](const Wish& e) { return must_wait_behind(wish, e); });
      if (!behind && fits(lock, id, wish)) {
        const Ask ask = *o.waiting;
        stop_waiting(id);
        grant(id, ask);
        ++count(lock).contended;
        events_.push_back({id, Answer::kGranted, false});
        again = true;
        break;
      }
      earlier.push_back(wish);
    }
  }
}

Answer Table::request(int id, const Ask& ask) {
  Owner& o = at(id);
  if (o.lost) return Answer::kLost;
  if (o.waiting) return Answer::kBusy;
  if (ask.wish.slots != 0 && other_size_in_use(o.lock, ask.wish.slots)) return Answer::kInvalid;
  if (ask.drop_first && o.held && !gives(mode_of(*o.held), mode_of(ask.wish)) &&
      !fits(o.lock, id, ask.wish)) {
    let_go(id);
    wake(o.lock);
  }
  if (ask.now || now_ >= o.kept_until || !rules_.keeps_place) o.kept_place = 0;
  const bool converting = o.held && o.held->counts();
  if (o.kept_place == 0) {
    const std::vector<int> queue = waiters(o.lock);
    const bool overtakes = std::any_of(queue.begin(), queue.end(), [&](int w) {
      return must_wait_behind(ask.wish, owner(w).waiting->wish);
    });
    if (fits(o.lock, id, ask.wish) && (converting || !overtakes)) {
      grant(id, ask);
      if (converting) wake(o.lock);
      return Answer::kGranted;
    }
    if (ask.now) return Answer::kWouldBlock;
  }
  if (converting && ring(id, ask.wish)) {
    ++count(o.lock).deadlocks;
    return Answer::kDeadlock;
  }
  o.place = o.kept_place != 0 ? o.kept_place : ++last_place_;
  const bool restarted = std::exchange(o.kept_place, 0) != 0;
  o.waiting = ask;
  o.converting = converting;
  if (ask.timeout >= 0) {
    o.deadline = now_ + ask.timeout;
    o.deadline_set = ++last_timer_;
  }
  if (restarted) wake(o.lock);
  return Answer::kWaits;
}

void Table::close(int id) {
  Owner& o = at(id);
  stop_waiting(id);
  if (o.held && o.held->counts() && o.linger >= 0) {
    o.closed = true;
    o.ends = now_ + o.linger;
    o.ends_set = ++last_timer_;
  } else {
    let_go(id);
    o.exists = false;
    std::erase(live_, id);
  }
  wake(o.lock);
}

void Table::cancel(int id) {
  Owner& o = at(id);
  if (!o.waiting) return;
  o.kept_place = o.place;
  o.kept_until = now_ + kSecond;
  stop_waiting(id);
  events_.push_back({id, Answer::kInterrupted, false});
  wake(o.lock);
}

void Table::release(int id) {
  Owner& o = at(id);
  o.lost = false;
  o.kept_place = 0;
  if (o.waiting && o.converting) {  // Nothing is left to convert: a request, at the end.
    o.converting = false;
    o.place = ++last_place_;
  }
  let_go(id);
  if (rules_.release_wakes) wake(o.lock);
}

void Table::undo(int id) {
  Owner& o = at(id);
  if (!o.held) return;
  const bool can = o.before && o.before->counts() && gives(mode_of(*o.held), mode_of(*o.before)) &&
                   fits(o.lock, id, *o.before);
  if (!can) return release(id);
  hold(id, *o.before);
  wake(o.lock);
}

Answer Table::renew(int id, Time ttl) {
  Owner& o = at(id);
  if (o.lost) return Answer::kLost;
  if (!o.held || !o.held->counts() || (ttl < 0 && o.ttl < 0)) return Answer::kInvalid;
  if (ttl >= 0) o.ttl = ttl;
  o.ends = now_ + o.ttl;
  o.ends_set = ++last_timer_;
  return Answer::kGranted;
}

Answer Table::resume(int id, int old, bool same_user) {
  Owner& o = at(id);
  Owner& left = at(old);
  if (old == id || left.linger < 0 || left.lock != o.lock) return Answer::kNotFound;
  if (!same_user) return Answer::kNotYours;
  if (!left.closed || o.held || o.waiting) return Answer::kBusy;
  const Wish wish = *left.held;
  o.ttl = left.ttl;
  o.linger = left.linger;
  o.ends = o.ttl >= 0 ? now_ + o.ttl : -1;
  if (o.ends >= 0) o.ends_set = ++last_timer_;
  o.lost = false;
  o.before.reset();
  let_go(old);
  left.exists = false;
  std::erase(live_, old);
  hold(id, wish);
  return Answer::kGranted;
}

void Table::lose(int id) {
  Owner& o = at(id);
  ++count(o.lock).lost;
  events_.push_back({id, Answer::kLost, true});
  if (o.waiting) {
    stop_waiting(id);
    events_.push_back({id, Answer::kLost, false});
  }
  let_go(id);
  o.lost = !o.closed;
  if (!o.closed) return;
  o.exists = false;
  std::erase(live_, id);
}

int Table::break_lock(int lock) {
  int broken = 0;
  for (const int id : std::vector<int>(holders(lock))) {
    if (!owner(id).held->counts()) continue;
    lose(id);
    ++broken;
  }
  wake(lock);
  return broken;
}

// Of all timers that are due the earliest; of two of one time the one set first.
bool Table::run_first_timer() {
  int first = -1;
  bool is_deadline = false;
  std::pair<Time, uint64_t> best = {now_, ~0ULL};
  for (const int id : live_) {
    const Owner& o = owner(id);
    const std::pair<Time, uint64_t> ends = {o.ends, o.ends_set};
    const std::pair<Time, uint64_t> deadline = {o.deadline, o.deadline_set};
    if (o.ends >= 0 && ends <= best) {
      best = ends;
      first = id;
      is_deadline = false;
    }
    if (o.deadline >= 0 && deadline <= best) {
      best = deadline;
      first = id;
      is_deadline = true;
    }
  }
  if (first < 0) return false;
  const int lock = owner(first).lock;
  if (is_deadline) {
    stop_waiting(first);
    ++count(lock).timeouts;
    events_.push_back({first, Answer::kTimedOut, false});
  } else if (owner(first).closed) {
    let_go(first);
    at(first).exists = false;
    std::erase(live_, first);
  } else {
    lose(first);
  }
  wake(lock);
  return true;
}

void Table::pass(Time time) {
  now_ += time;
  while (run_first_timer()) continue;
}

std::vector<Event> Table::take_events() { return std::exchange(events_, {}); }

}  // namespace lockfs::model
