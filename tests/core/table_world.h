// SPDX-License-Identifier: MIT
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "backends/memory.h"
#include "core/lock_table.h"

namespace lockfs {

// How failures print these.
inline std::ostream& operator<<(std::ostream& out, LockErrc e) {
  return out << make_error_code(e).message();
}
inline std::ostream& operator<<(std::ostream& out, Mode mode) { return out << mode_name(mode); }
inline std::ostream& operator<<(std::ostream& out, OwnerId id) {
  return out << "owner " << static_cast<uint64_t>(id);
}

/// Processes as a test wants them: each thread is its process, unless said otherwise.
class FakeProcesses final : public Processes {
 public:
  pid_t process_of(pid_t tid) override {
    const auto it = thread_of.find(tid);
    return it == thread_of.end() ? tid : it->second;
  }
  bool sole_releaser(pid_t process, TimePoint /*since*/, uint64_t inode,
                     size_t descriptions) override {
    asked.push_back({process, inode, descriptions});
    return !with_threads.contains(process) && descriptions <= descriptions_each;
  }
  ProcessInfo describe(pid_t tid) override { return {process_of(tid), "fake", {}}; }

  struct Asked {
    pid_t process;
    uint64_t inode;
    size_t descriptions;
  };
  std::map<pid_t, pid_t> thread_of;  ///< The process of a thread.
  std::set<pid_t> with_threads;      ///< Processes of several threads.
  size_t descriptions_each = 2;      ///< How many descriptions each has of every inode.
  std::vector<Asked> asked;
};

/// Notes what the table tells, and may call back into the table.
class Recorder final : public LockObserver {
 public:
  struct Answer {
    OwnerId owner;
    LockErrc result;
    friend bool operator==(const Answer&, const Answer&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Answer& a) {
      return out << a.owner << ": " << a.result;
    }
  };
  void answered(OwnerId owner, LockErrc result) override {
    answers.push_back({owner, result});
    if (on_answer) on_answer(owner, result);
  }
  void lost(OwnerId owner, std::string_view why) override {
    losses.emplace_back(owner, std::string(why));
  }
  void changed(const Lock& lock) override { changes.emplace_back(lock.name()); }

  /// The answers since the last call.
  std::vector<Answer> take() { return std::exchange(answers, {}); }

  std::vector<Answer> answers;
  std::vector<std::pair<OwnerId, std::string>> losses;
  std::vector<std::string> changes;
  std::function<void(OwnerId, LockErrc)> on_answer;
};

inline constexpr std::array kAllModes = {Mode::kNL, Mode::kCR, Mode::kCW,
                                         Mode::kPR, Mode::kPW, Mode::kEX};

inline Request want(Mode mode) {
  Request request;
  request.want = {mode, 0};
  return request;
}
inline Request want_slot(uint32_t size) {
  Request request;
  request.want = slot_of(size);
  return request;
}
inline Request trying(Request request) {
  request.now = true;
  return request;
}

/// A table over some backend, a clock that stands still, and short words for both.
class TableWorldOn : public testing::Test {
 protected:
  using Answer = Recorder::Answer;
  static constexpr pid_t kNobody = 0;  ///< A process out of sight: takes no part in deadlocks.

  explicit TableWorldOn(LockBackend& backend)
      : table(timers, processes, observer), space(table.add_lockspace("default", backend)) {
    timers.set_now(TimePoint(std::chrono::hours(1)));
  }
  LockErrc pin(Lockspace& where, std::string_view name, const Pin& pin, bool fresh = true) {
    LockErrc result = LockErrc::kUnreachable;  // When it is not told.
    table.pin(where, name, pin, fresh, [&](LockErrc told) { result = told; });
    return result;
  }
  LockErrc unpin(Lockspace& where, std::string_view name) {
    LockErrc result = LockErrc::kUnreachable;
    table.unpin(where, name, [&](LockErrc told) { result = told; });
    return result;
  }

  OwnerId open(pid_t pid = kNobody, std::string_view name = "a", uid_t uid = 1000) {
    const OwnerId id = table.open(space, name, {pid, uid, uid});
    clients_[id] = {pid, uid, uid};
    return id;
  }
  std::optional<LockErrc> ask(OwnerId owner, Request request) {
    return table.request(owner, std::move(request), clients_.at(owner));
  }
  std::optional<LockErrc> ask(OwnerId owner, Mode mode) { return ask(owner, want(mode)); }
  std::optional<LockErrc> attempt(OwnerId owner, Mode mode) {
    return ask(owner, trying(want(mode)));
  }
  /// An owner that holds `mode` already.
  OwnerId holder(Mode mode, pid_t pid = kNobody, std::string_view name = "a") {
    const OwnerId id = open(pid, name);
    EXPECT_EQ(ask(id, mode), LockErrc::kOk);
    return id;
  }
  /// An owner that waits for `mode`.
  OwnerId waiter(Mode mode, pid_t pid = kNobody, std::string_view name = "a") {
    const OwnerId id = open(pid, name);
    EXPECT_EQ(ask(id, mode), std::nullopt);
    EXPECT_TRUE(waits(id));
    return id;
  }
  void pass(Duration time) { timers.advance(timers.now() + time); }

  bool holds(OwnerId id, Mode mode) const {
    const Owner* owner = table.find(id);
    return owner != nullptr && owner->holding && owner->held == Share{mode, 0};
  }
  bool waits(OwnerId id) const {
    const Owner* owner = table.find(id);
    return owner != nullptr && owner->wait != nullptr;
  }
  bool free(OwnerId id) const {
    const Owner* owner = table.find(id);
    return owner != nullptr && !owner->holding && !owner->wait;
  }
  Lock& lock(std::string_view name = "a") { return *table.find(space, name); }

  TimerQueue timers;
  FakeProcesses processes;
  Recorder observer;
  LockTable table;
  Lockspace& space;

 private:
  std::map<OwnerId, Client> clients_;
};

struct MemoryWorld {
  MemoryBackend memory;
};

/// A table alone.
class TableWorld : private MemoryWorld, public TableWorldOn {
 protected:
  TableWorld() : TableWorldOn(memory) {}
};

}  // namespace lockfs
