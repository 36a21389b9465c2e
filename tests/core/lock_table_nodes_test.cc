// SPDX-License-Identifier: MIT
// Several tables that share a server, whose messages take their time both ways: whatever the order
// in which they arrive, no two nodes hold what excludes each other, and nobody waits for nothing.
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/lock_table.h"
#include "tests/core/async_backend.h"
#include "tests/core/table_invariants.h"
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

constexpr size_t kNodes = 3;
constexpr std::array kNames = {"a", "b"};

/// A lock server: grants a claim when it goes with all other claims.
class Server {
 public:
  using Send = std::function<void(size_t node, std::function<void(ClaimEvents&)> event)>;
  explicit Server(Send send) : send_(std::move(send)) {}

  void acquire(size_t node, ClaimId id, const std::string& name, Mode mode, bool now) {
    if (forgotten_.contains({node, id})) return;  // It was on its way; the loss is the answer.
    auto& claims = claims_[name];
    Claim* claim = find(node, id);
    if (claim == nullptr) claim = &claims.emplace_back(Claim{node, id, Mode::kNL, {}});
    if (fits(name, *claim, mode)) return grant(*claim, mode);
    const bool ring = std::any_of(claims.begin(), claims.end(), [&](const Claim& other) {
      return &other != claim && other.wanted && !compatible(other.mode, mode) &&
             !compatible(*other.wanted, claim->mode);
    });
    if (now || ring) return fail(*claim, now ? LockErrc::kWouldBlock : LockErrc::kDeadlock);
    claim->wanted = mode;
  }
  void cancel(size_t node, ClaimId id) {
    Claim* claim = find(node, id);
    if (claim != nullptr && claim->wanted) fail(*claim, LockErrc::kInterrupted);
  }
  void release(size_t node, ClaimId id) {
    for (auto& [name, claims] : claims_) {
      const auto mine = [&](const Claim& c) { return c.node == node && c.id == id; };
      if (std::erase_if(claims, mine) != 0) wake(name);
    }
  }
  /// The server forgets what a node holds, and tells it so.
  void lose(size_t node, const std::string& name) {
    const auto mine = [&](const Claim& c) { return c.node == node; };
    for (const Claim& claim : claims_[name]) {
      if (!mine(claim)) continue;
      forgotten_.emplace(node, claim.id);
      send_(node, [id = claim.id](ClaimEvents& events) { events.lost(id, "forgotten"); });
    }
    std::erase_if(claims_[name], mine);
    wake(name);
  }
  size_t claims(const std::string& name) { return claims_[name].size(); }

 private:
  struct Claim {
    size_t node;
    ClaimId id;
    Mode mode;
    std::optional<Mode> wanted;
  };
  Claim* find(size_t node, ClaimId id) {
    for (auto& [name, claims] : claims_) {
      for (Claim& c : claims) {
        if (c.node == node && c.id == id) return &c;
      }
    }
    return nullptr;
  }
  bool fits(const std::string& name, const Claim& claim, Mode mode) {
    return std::all_of(claims_[name].begin(), claims_[name].end(), [&](const Claim& other) {
      return &other == &claim || compatible(other.mode, mode);
    });
  }
  void grant(Claim& claim, Mode mode) {
    claim.mode = mode;
    claim.wanted.reset();
    const uint64_t token = ++last_token_;
    send_(claim.node, [id = claim.id, mode, token](ClaimEvents& events) {
      events.granted(id, mode, {token, token + 1});
    });
    wake(name_of(claim));
  }
  void fail(Claim& claim, LockErrc why) {
    const std::string name = name_of(claim);
    const Claim gone = claim;
    claim.wanted.reset();
    send_(gone.node, [id = gone.id, why](ClaimEvents& events) { events.failed(id, why); });
    if (gone.mode != Mode::kNL) return;
    std::erase_if(claims_[name],
                  [&](const Claim& c) { return c.node == gone.node && c.id == gone.id; });
  }
  std::string name_of(const Claim& claim) {
    for (auto& [name, claims] : claims_) {
      for (const Claim& c : claims) {
        if (&c == &claim) return name;
      }
    }
    return {};
  }
  void wake(const std::string& name) {
    for (Claim& claim : claims_[name]) {
      if (claim.wanted && fits(name, claim, *claim.wanted)) return grant(claim, *claim.wanted);
    }
  }

  Send send_;
  std::map<std::string, std::deque<Claim>> claims_;
  std::set<std::pair<size_t, ClaimId>> forgotten_;
  uint64_t last_token_ = 0;
};

struct Node final : BlindBackend, LockObserver {
  Node() {
    traits_.name = "toy";
    traits_.other_nodes = true;
    traits_.contention_hints = true;
  }
  const LockTraits& traits() const override { return traits_; }
  void acquire(ClaimId claim, std::string_view, std::string_view name, Mode mode,
               bool now) override {
    up.push_back([this, claim, name = std::string(name), mode, now](Server& server) {
      server.acquire(number, claim, name, mode, now);
    });
  }
  void cancel(ClaimId claim) override {
    up.push_back([this, claim](Server& server) { server.cancel(number, claim); });
  }
  void release(ClaimId claim) override {
    up.push_back([this, claim](Server& server) { server.release(number, claim); });
  }
  void answered(OwnerId owner, LockErrc result) override {
    if (result == LockErrc::kOk) ++grants;
    if (result != LockErrc::kDeadlock) return;
    ++deadlocks;
    const Lock& lock = *table.find(owner)->lock;
    EXPECT_NE(lock.needed(nullptr, {}), Mode::kNL) << "nobody here holds what others wait for";
  }
  ClaimEvents& events() { return *events_; }
  void lost(OwnerId, std::string_view) override { ++losses; }
  void changed(const Lock&) override {}

  size_t number = 0;
  LockTraits traits_;
  std::deque<std::function<void(Server&)>> up;
  std::deque<std::function<void(ClaimEvents&)>> down;
  TimerQueue timers;
  FakeProcesses processes;
  LockTable table{timers, processes, *this};
  Lockspace& space = table.add_lockspace("default", *this);
  std::vector<OwnerId> owners;
  size_t grants = 0;
  size_t losses = 0;
  size_t deadlocks = 0;
};

class Cluster {
 public:
  explicit Cluster(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kNodes; ++i) {
      nodes_.push_back(std::make_unique<Node>());
      nodes_.back()->number = i;
    }
  }

  void run(int steps, bool with_losses) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      step();
      if (with_losses && pick(200) == 0) server_.lose(pick(kNodes), kNames.at(pick(2)));
      // While a loss is on its way down, the node believes that it still holds: the two overlap.
      if (!with_losses) check_exclusion();
      check_nodes();
      if (i % 50 == 0) check_no_try_is_left_when_all_is_quiet();
    }
    finish();
  }
  size_t grants() const { return nodes_[0]->grants + nodes_[1]->grants + nodes_[2]->grants; }
  size_t deadlocks() const {
    return nodes_[0]->deadlocks + nodes_[1]->deadlocks + nodes_[2]->deadlocks;
  }
  size_t losses() const { return nodes_[0]->losses + nodes_[1]->losses + nodes_[2]->losses; }

 private:
  size_t pick(size_t below) { return random_() % below; }

  void step() {
    Node& node = *nodes_[pick(kNodes)];
    const size_t what = pick(20);
    if (pick(50) == 0) pass(node, LockTable::kSecondLook);
    if (what < 6) return deliver_up(node);
    if (what < 12) return deliver_down(node);
    if (node.owners.size() < 4) {
      node.owners.push_back(node.table.open(node.space, kNames.at(pick(2)), {}));
      return;
    }
    const OwnerId owner = node.owners[pick(node.owners.size())];
    if (what < 16) return request(node, owner);
    if (what < 18) return node.table.release(owner);
    if (what == 18) return node.table.cancel(owner);
    std::erase(node.owners, owner);
    node.table.close(owner);
  }
  void request(Node& node, OwnerId owner) {
    Request request = want(kAllModes.at(pick(6)));
    request.now = pick(4) == 0;
    request.drop_first = pick(8) == 0;
    node.table.request(owner, std::move(request), {});
  }
  void deliver_up(Node& node) {
    if (node.up.empty()) return;
    const auto verb = std::move(node.up.front());
    node.up.pop_front();
    verb(server_);
  }
  void deliver_down(Node& node) {
    if (node.down.empty()) return;
    const auto event = std::move(node.down.front());
    node.down.pop_front();
    event(node.events());
  }
  static void pass(Node& node, Duration time) { node.timers.advance(node.timers.now() + time); }
  void quiet() {
    int rounds = 0;
    for (bool busy = true; busy;) {
      ASSERT_LT(++rounds, 10000) << "table and server talk for ever";
      busy = false;
      for (const auto& node : nodes_) {
        busy = busy || !node->up.empty() || !node->down.empty();
        deliver_up(*node);
        deliver_down(*node);
      }
      if (busy) continue;
      for (const auto& node : nodes_) {
        pass(*node, LockTable::kSecondLook);
        busy = busy || !node->up.empty();
      }
    }
  }
  void check_exclusion() {
    for (const char* name : kNames) {
      for (size_t i = 0; i < kNodes; ++i) {
        for (size_t j = i + 1; j < kNodes; ++j) {
          const Lock* x = nodes_[i]->table.find(nodes_[i]->space, name);
          const Lock* y = nodes_[j]->table.find(nodes_[j]->space, name);
          if (x == nullptr || y == nullptr) continue;
          const Mode a = x->needed(nullptr, {});
          const Mode b = y->needed(nullptr, {});
          EXPECT_TRUE(compatible(a, b)) << i << " holds " << a << " and " << j << " holds " << b;
        }
      }
    }
  }
  void check_nodes() {
    for (const auto& node : nodes_) {
      for (const auto& [name, lock] : node->space.locks) EXPECT_EQ(broken_invariant(lock), "");
      EXPECT_EQ(broken_invariant(node->space), "");
    }
  }
  void check_no_try_is_left_when_all_is_quiet() {
    quiet();
    for (const auto& node : nodes_) {
      for (const auto& [name, lock] : node->space.locks) {
        EXPECT_EQ(lock.queues ? lock.queues->impatient : 0, 0U);
      }
    }
  }
  void finish() {
    for (const auto& node : nodes_) {
      for (const OwnerId owner : node->owners) node->table.release(owner);
    }
    for (int round = 0; round < 20; ++round) {  // Each turn lets the next ones go.
      quiet();
      for (const auto& node : nodes_) {
        for (const OwnerId owner : node->owners) {
          if (node->table.find(owner)->holding) node->table.release(owner);
        }
      }
    }
    for (const auto& node : nodes_) {
      for (const OwnerId owner : node->owners) {
        EXPECT_EQ(node->table.find(owner)->wait, nullptr) << "waits for nobody";
        node->table.close(owner);
      }
    }
    quiet();
    for (const char* name : kNames) EXPECT_EQ(server_.claims(name), 0U) << "a claim is left";
  }

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Node>> nodes_;
  Server server_{[this](size_t node, std::function<void(ClaimEvents&)> event) {
    nodes_[node]->down.push_back(std::move(event));
  }};
};

TEST(LockTableNodes, NeverHoldWhatExcludesEachOther) {
  size_t grants = 0;
  size_t deadlocks = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster(seed);
    cluster.run(1000, false);
    grants += cluster.grants();
    deadlocks += cluster.deadlocks();
    if (HasFailure()) return;
  }
  EXPECT_GT(grants, 5000U);
  EXPECT_GT(deadlocks, 50U);
}

TEST(LockTableNodes, AreWellAfterLosses) {
  size_t losses = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster(seed);
    cluster.run(1000, true);
    losses += cluster.losses();
    if (HasFailure()) return;
  }
  EXPECT_GT(losses, 100U);
}

}  // namespace
}  // namespace lockfs
