// SPDX-License-Identifier: MIT
// Bytes become operations on a lock table over a backend that answers when the bytes say so; after
// each operation all invariants are looked at, and at the end nothing may be left.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/lock_table.h"
#include "tests/core/async_backend.h"
#include "tests/core/table_invariants.h"

namespace lockfs {
namespace {

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "broken: %s\n", what.c_str());
  std::abort();
}

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  uint8_t take() { return empty() ? uint8_t{0} : *at_++; }
  uint8_t take(uint8_t below) { return static_cast<uint8_t>(take() % below); }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

/// Process n has one thread, except the odd ones.
struct Processes final : lockfs::Processes {
  pid_t process_of(pid_t tid) override { return tid; }
  bool sole_releaser(pid_t process, TimePoint, uint64_t, size_t) override {
    return process % 2 == 0;
  }
  ProcessInfo describe(pid_t tid) override { return {tid, {}, {}}; }
};

/// Every wait that request() left open must end in exactly one answer.
struct Observer final : LockObserver {
  void answered(OwnerId owner, LockErrc /*result*/) override {
    if (--open_waits[owner] < 0) early.push_back(owner);
  }
  void lost(OwnerId /*owner*/, std::string_view /*why*/) override {}
  void changed(const Lock& lock) override {
    if (lock.name().empty()) fail("a change of a lock without a name");
  }
  std::map<OwnerId, int> open_waits;
  std::vector<OwnerId> early;  ///< Answered before request() returned.
};

class Fuzzed {
 public:
  explicit Fuzzed(Bytes bytes)
      : bytes_(bytes),
        table_(timers_, processes_, observer_),
        space_(table_.add_lockspace("default", backend_)) {
    const uint8_t traits = bytes_.take();
    backend_.change_traits().shared_modes = (traits & 1) == 0;
    backend_.change_traits().other_nodes = (traits & 2) == 0;
    backend_.change_traits().strict_turns = (traits & 32) != 0;
    if ((traits & 4) != 0) backend_.grant_at_once_with = 1 + (traits >> 6);
    table_.idle_limit = traits >> 3 & 3;
    table_.quota.limits = {100, 6, 8};
  }

  void run() {
    for (int i = 0; i < 4; ++i) open();
    while (!bytes_.empty()) {
      step();
      look();
    }
    finish();
  }

 private:
  Client client() {
    const uint8_t byte = bytes_.take();
    return {byte & 7, static_cast<uid_t>(byte >> 3 & 3), 0};
  }
  void open() {
    const uint8_t byte = bytes_.take();
    const std::string name(1, static_cast<char>('a' + byte % 3));
    owners_.push_back(table_.open(space_, name, {byte >> 2 & 7, 1, 1}));
    if ((byte & 0x80) != 0) table_.watch(*table_.find(space_, name));
  }
  void request(OwnerId owner) {
    const uint8_t what = bytes_.take();
    const uint8_t how = bytes_.take();
    Request request;
    request.want = what % 7 == 6 ? slot_of(2 + (what >> 7)) : Share{static_cast<Mode>(what % 7), 0};
    request.now = (how & 1) != 0;
    request.drop_first = (how & 2) != 0;
    if ((how & 4) != 0) request.timeout = std::chrono::milliseconds(how);
    if ((how & 8) != 0) request.ttl = std::chrono::milliseconds(how * 2);
    if ((how & 16) != 0) request.linger = std::chrono::milliseconds(how);
    const Owner* before = table_.find(owner);
    const bool waited = before->wait != nullptr;
    const auto answer = table_.request(owner, std::move(request), client());
    if (answer) return;
    if (waited) fail("a second wait of one owner");
    if (std::erase(observer_.early, owner) == 0)
      ++observer_.open_waits[owner];
    else
      observer_.open_waits[owner] = 0;
  }
  void close(OwnerId owner) {
    if (table_.find(owner)->wait) --observer_.open_waits[owner];  // Not answered any more.
    const Owner* o = table_.find(owner);
    if (o->extras && o->extras->linger) keys_.push_back(o->extras->key);
    std::erase(owners_, owner);
    table_.close(owner);
  }
  void answer() {
    if (backend_.asks.empty()) return;
    const uint8_t how = bytes_.take();
    if (how < 160 || backend_.oldest().mode == Mode::kNL) return backend_.grant(1 + how % 3);
    if (how < 200) return backend_.fail(LockErrc::kWouldBlock);
    if (how < 230) return backend_.fail(LockErrc::kUnreachable);
    const ClaimId claim = backend_.oldest().claim;
    std::erase_if(backend_.asks, [&](const auto& ask) { return ask.claim == claim; });
    backend_.events().lost(claim, "fuzz");
  }
  void pin() {
    const std::string name(1, static_cast<char>('a' + bytes_.take(3)));
    Lock* lock = table_.find(space_, name);
    if (lock != nullptr && lock->pin) return table_.unpin(space_, name, [](LockErrc) {});
    table_.pin(space_, name, {client().uid, 0666, false}, true, [](LockErrc) {});
  }
  // A claim is lost, or another node waits for it.
  void lose() {
    const uint8_t what = bytes_.take(6);
    Lock* lock = table_.find(space_, std::string(1, static_cast<char>('a' + what % 3)));
    if (lock == nullptr) return;
    if (what >= 3) {
      if (lock->claim != nullptr) table_.contended(lock->claim->id);
      return;
    }
    if (lock->claim == nullptr || lock->claim->asking) {
      table_.break_lock(*lock, "fuzz");
      return;
    }
    table_.lost(lock->claim->id, "fuzz");
  }
  void resume(OwnerId owner) {
    if (keys_.empty()) return;
    table_.resume(owner, keys_[bytes_.take() % keys_.size()], client());
  }
  void step() {
    const uint8_t verb = bytes_.take(16);
    if (owners_.empty() || (verb == 0 && owners_.size() < 20)) return open();
    const OwnerId owner = owners_[bytes_.take() % owners_.size()];
    switch (verb) {
      case 1:
      case 2:
      case 3:
      case 4:
      case 5: return request(owner);
      case 6:
      case 7: return table_.release(owner);
      case 8: return close(owner);
      case 9: return table_.cancel(owner);
      case 10: return table_.undo(owner);
      case 11: return timers_.advance(timers_.now() + std::chrono::milliseconds(bytes_.take()));
      case 12: return pin();
      case 13: return lose();
      case 14: return resume(owner);
      default: return answer();
    }
  }
  void look() {
    if (backend_.breaches != 0) fail("the backend's contract");
    if (!observer_.early.empty()) fail("an answer that nobody waits for");
    for (const auto& [name, lock] : space_.locks) {
      if (const std::string what = broken_invariant(lock); !what.empty()) fail(what);
    }
    if (const std::string what = broken_invariant(space_); !what.empty()) fail(what);
    if (const std::string what = tally_.look(table_.journal, space_); !what.empty()) fail(what);
    for (const OwnerId owner : owners_) {
      const Owner* o = table_.find(owner);
      if (o == nullptr) fail("an open owner is gone");
      const int waits = o->wait ? 1 : 0;
      if (observer_.open_waits[owner] != waits) fail("a wait without an answer, or the reverse");
    }
  }
  // When all have closed and all answers have come, nobody holds anything and no claim is left.
  void finish() {
    while (!owners_.empty()) close(owners_.back());
    timers_.advance(timers_.now() + std::chrono::hours(1));
    while (!backend_.asks.empty()) backend_.grant();
    // What lingered until now changed its claim, which the backend is told of a little later.
    timers_.advance(timers_.now() + LockTable::kDescribeAfter);
    for (const auto& [name, lock] : space_.locks) {
      if (lock.owners != 0 || lock.held() || lock.waiters() != 0) fail("somebody is left");
      if (lock.claim != nullptr) fail("a claim is left");
    }
    if (timers_.next()) fail("a timer is left");
    if (!table_.waits().empty()) fail("a wait is left in the graph");
  }

  Bytes bytes_;
  AsyncBackend backend_;
  TimerQueue timers_;
  Processes processes_;
  Observer observer_;
  LockTable table_;
  Lockspace& space_;
  JournalTally tally_;
  std::vector<OwnerId> owners_;
  std::vector<std::string> keys_;
};

}  // namespace
}  // namespace lockfs

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lockfs::Fuzzed(lockfs::Bytes(data, size)).run();
  return 0;
}
