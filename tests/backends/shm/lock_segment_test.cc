// SPDX-License-Identifier: MIT
// The locks of a segment beside a model of them: nodes that ask at random.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "tests/backends/shm/segment_memory.h"

namespace lockfs::shm::test {
namespace {

using Turn = LockSegment::Turn;

// Naive and obviously right: the holders, and those that wait in the order they came.
struct Model {
  struct Waiter {
    uint32_t node;
    Mode mode;
  };
  std::map<uint32_t, Mode> held;
  std::vector<Waiter> queue;

  bool fits(uint32_t node, Mode mode) const {
    return std::all_of(held.begin(), held.end(), [&](const auto& holder) {
      return holder.first == node || compatible(holder.second, mode);
    });
  }
  bool converts(uint32_t node) const { return held.contains(node); }
  bool waits(uint32_t node) const {
    return std::any_of(queue.begin(), queue.end(), [&](const auto& w) { return w.node == node; });
  }
  Turn acquire(uint32_t node, Mode mode, bool now) {
    if (fits(node, mode) && (converts(node) || !delays(mode, queue.size()))) {
      held[node] = mode;
      go();
      return Turn::kGranted;
    }
    if (now) return Turn::kRefused;
    if (converts(node) && deadlocked(node, mode)) return Turn::kDeadlock;
    queue.push_back({node, mode});
    return Turn::kWaits;
  }
  // Two or more that hold and convert wait for each other in a ring: none can ever go.
  bool deadlocked(uint32_t node, Mode mode) const {
    std::map<uint32_t, Mode> wants = {{node, mode}};
    for (const Waiter& w : queue) {
      if (converts(w.node)) wants[w.node] = w.mode;
    }
    std::vector<uint32_t> path = {node};
    std::map<uint32_t, bool> seen;
    while (!path.empty()) {
      const uint32_t from = path.back();
      path.pop_back();
      for (const auto& [other, want] : wants) {
        if (other == from || compatible(wants[from], held.at(other))) continue;
        if (other == node) return true;
        if (!std::exchange(seen[other], true)) path.push_back(other);
      }
    }
    return false;
  }
  void end(uint32_t node) {
    held.erase(node);
    stop_waiting(node);
  }
  void stop_waiting(uint32_t node) {
    std::erase_if(queue, [&](const auto& w) { return w.node == node; });
    go();
  }
  void go() {
    for (bool again = true; again;) {
      again = false;
      auto next = std::find_if(queue.begin(), queue.end(), [&](const Waiter& w) {
        return converts(w.node) && fits(w.node, w.mode);
      });
      for (size_t i = 0; i < queue.size() && next == queue.end(); ++i) {
        const Waiter& w = queue[i];
        if (!converts(w.node) && fits(w.node, w.mode) && !delays(w.mode, i)) {
          next = queue.begin() + static_cast<ptrdiff_t>(i);
        }
      }
      if (next == queue.end()) continue;
      held[next->node] = next->mode;
      queue.erase(next);
      again = true;
    }
  }
  // Would one that stands at this place in the queue delay a conversion, or one before it?
  bool delays(Mode mode, size_t place) const {
    for (size_t i = 0; i < queue.size(); ++i) {
      if ((i < place || converts(queue[i].node)) && !compatible(mode, queue[i].mode)) return true;
    }
    return false;
  }
  std::string words(uint32_t nodes) const {
    std::string out;
    for (uint32_t node = 0; node < nodes; ++node) {
      if (held.contains(node)) out += std::string(mode_name(held.at(node))) + " ";
      for (const Waiter& w : queue) {
        if (w.node == node) out += std::string(mode_name(w.mode)) + "? ";
      }
    }
    return out.empty() ? "free" : out;
  }
};

TEST(LockSegment, DoesWhatTheModelDoesInARandomWalk) {
  constexpr uint32_t kMany = 6;
  constexpr int kSteps = 40000;
  std::mt19937 random(7);
  const auto pick = [&](uint32_t n) {
    return std::uniform_int_distribution<uint32_t>(0, n - 1)(random);
  };
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  const std::vector<std::string> names = {"a", "b", "c"};
  std::map<std::string, Model> models;
  std::map<std::pair<std::string, uint32_t>, std::pair<LockSegment::Place, Mode>> kept;
  size_t retaken = 0;
  for (int step = 0; step < kSteps; ++step) {
    const std::string& name = names[pick(3)];
    const uint32_t node = pick(kMany);
    Model& model = models[name];
    const auto place = segment.place_of("space", name);
    NodeSet wake = 0;
    const uint32_t verb = pick(10);
    if (verb < 4 && !model.waits(node)) {
      const auto mode = static_cast<Mode>(1 + pick(5));
      const bool now = pick(4) == 0;
      std::optional<LockSegment::Place> at;
      kept.erase({name, node});
      const Turn turn = segment.acquire(node, "space", name, mode, now, at, wake);
      ASSERT_EQ(turn, model.acquire(node, mode, now)) << "step " << step;
    } else if (verb < 6 && place) {
      const bool any = model.waits(node) || model.converts(node);
      if (any) segment.release(node, *place, wake);
      if (any) model.end(node);
    } else if (verb == 6 && place && model.waits(node)) {
      ASSERT_TRUE(segment.cancel(node, *place, wake));
      model.stop_waiting(node);
    } else if (verb == 7 && pick(20) == 0) {
      segment.release_all(node, wake);
      std::erase_if(kept, [&](const auto& each) { return each.first.second == node; });
      for (auto& [each, its] : models) its.end(node);
    } else if (verb == 8 && place && model.converts(node) && !model.waits(node)) {
      const Mode mode = model.held.at(node);
      if (segment.keep(node, *place)) {
        model.end(node);
        kept[{name, node}] = {*place, mode};
        if (pick(2) == 0 && segment.retake(node, *place, mode, mode)) {
          ++retaken;
          kept.erase({name, node});
          ASSERT_EQ(model.acquire(node, mode, true), Turn::kGranted) << "step " << step;
        }
      }
    } else if (verb == 9 && kept.contains({name, node})) {
      const auto [at, mode] = kept.at({name, node});
      kept.erase({name, node});
      if (segment.retake(node, at, mode, mode)) {
        ++retaken;
        ASSERT_EQ(model.acquire(node, mode, true), Turn::kGranted) << "step " << step;
      }
    }
    for (const auto& [each, its] : models) {
      ASSERT_EQ(claims_of(segment, each), its.words(kMany)) << each << ", step " << step;
    }
    const auto wrong = segment.check();
    ASSERT_FALSE(wrong) << *wrong << ", step " << step;
  }
  EXPECT_GT(retaken, 100U);
}

TEST(LockSegment, WhatIsKeptStandsInNobodysWay) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  ASSERT_EQ(segment.acquire(0, "space", "a", Mode::kEX, true, place, wake), Turn::kGranted);
  ASSERT_TRUE(segment.keep(0, *place));
  EXPECT_FALSE(segment.look(1, "space", "a")) << "nobody holds it";
  ASSERT_TRUE(segment.retake(0, *place, Mode::kEX, Mode::kPR));
  EXPECT_EQ(segment.acquire(1, "space", "a", Mode::kEX, true, place, wake), Turn::kRefused);
  ASSERT_TRUE(segment.keep(0, *place));
  EXPECT_EQ(segment.acquire(1, "space", "a", Mode::kEX, true, place, wake), Turn::kGranted);
  EXPECT_FALSE(segment.retake(0, *place, Mode::kPR, Mode::kPR)) << "it was taken away";
}

TEST(LockSegment, ALookFromOutsideIsThatFromWithinOrNone) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  ASSERT_TRUE(segment.begin(0));
  segment.acquire(0, "space", "a", Mode::kEX, true, place, wake);
  EXPECT_FALSE(segment.look_outside(1, "space", "a")) << "somebody is within";
  segment.end();
  const auto seen = segment.look_outside(1, "space", "a");
  ASSERT_TRUE(seen && *seen);
  EXPECT_EQ((*seen)->claims.size(), 1U);
  const auto nothing = segment.look_outside(1, "space", "b");
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(*nothing);
}

TEST(LockSegment, WhatIsKeptMakesRoomWhenTheSegmentIsFull) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string name = std::to_string(i);
    ASSERT_EQ(segment.acquire(0, "space", name, Mode::kEX, true, place, wake), Turn::kGranted);
    ASSERT_TRUE(segment.keep(0, *place));
  }
}

TEST(LockSegment, WakesWhomItGrantsAndWhoeverHoldsWhatIsWantedAndNobodyElse) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  segment.acquire(0, "space", "a", Mode::kEX, false, place, wake);
  for (const uint32_t node : {5U, 3U, 9U}) {
    segment.acquire(node, "space", "a", Mode::kPR, false, place, wake);
  }
  EXPECT_EQ(segment.acquire(4, "space", "a", Mode::kEX, false, place, wake), Turn::kWaits);
  EXPECT_EQ(wake, 1U << 0) << "it holds what they want";
  EXPECT_TRUE(segment.claim(0, *place).contended);
  wake = 0;
  segment.release(0, *place, wake);
  EXPECT_EQ(wake, 1U << 5 | 1U << 3 | 1U << 9);
  EXPECT_TRUE(segment.claim(5, *place).contended) << "by the writer behind them";
}

TEST(LockSegment, IsFullWhenAllLocksAreInUseAndUsableAgainAfter) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  for (int i = 0; i < 64; ++i) {
    ASSERT_EQ(segment.acquire(0, "space", std::to_string(i), Mode::kEX, true, place, wake),
              Turn::kGranted);
  }
  EXPECT_EQ(segment.acquire(0, "space", "one more", Mode::kEX, true, place, wake), Turn::kFull);
  EXPECT_EQ(segment.pin("space", "one more", {}, true), LockErrc::kLimit);
  EXPECT_EQ(segment.acquire(1, "space", "5", Mode::kEX, true, place, wake), Turn::kRefused);
  segment.release(0, *place, wake);
  EXPECT_EQ(segment.acquire(0, "space", "one more", Mode::kEX, true, place, wake), Turn::kGranted);
}

TEST(LockSegment, ShowsTheNodeWhereThereIsNoRoomForItsWords) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  Presence who;
  who.comm = "make";
  for (uint32_t node = 0; node < kTexts + 2; ++node) {
    segment.node(node).host = {"there"};
    segment.acquire(node, "space", "a", Mode::kPR, false, place, wake);
    segment.describe(node, *place, who);
  }
  const auto lock = segment.look(kOnlooker, "space", "a");
  ASSERT_EQ(lock->claims.size(), kTexts + 2);
  EXPECT_EQ(lock->claims.front().who.comm, "make");
  EXPECT_EQ(lock->claims.back().who.comm, "");
  EXPECT_EQ(lock->claims.back().who.host, "there");
}

TEST(LockSegment, TheLongestNamesFit) {
  SegmentMemory memory(64);
  LockSegment segment = memory.segment();
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  const std::string space(255, 's');
  const std::string name(255, 'n');
  EXPECT_EQ(segment.acquire(0, space, name, Mode::kEX, true, place, wake), Turn::kGranted);
  EXPECT_EQ(segment.acquire(1, space, name, Mode::kEX, true, place, wake), Turn::kRefused);
  EXPECT_EQ(segment.look_all(1, space).size(), 1U);
  EXPECT_EQ(segment.look_all(1, space.substr(1)).size(), 0U);
}

// Makes a change as ShmBackend does: with damage, mends what can be mended, once; nullopt when it
// cannot be, and the change is not ended.
template <typename Change>
std::optional<Turn> as_a_mount_does(LockSegment& segment, Change change) {
  NodeSet wake = 0;
  for (int i = 0; i < 2; ++i) {
    try {
      if (!segment.begin(1) || i == 1) segment.repair(wake);
      const Turn turn = change();
      segment.end();
      return turn;
    } catch (const DamagedSegment&) {
    }
  }
  return std::nullopt;
}

// Random bytes over any part: whoever reads it says so, and no lock that is held is given away.
TEST(LockSegment, WithRandomBytesInItGrantsNothingWrong) {
  std::mt19937 random(11);
  const auto pick = [&](size_t n) {
    return std::uniform_int_distribution<size_t>(0, n - 1)(random);
  };
  SegmentMemory memory(64);
  size_t said = 0;
  for (int round = 0; round < 50000; ++round) {
    LockSegment::format(memory.base(), 64);
    LockSegment segment = memory.segment();
    NodeSet wake = 0;
    std::optional<LockSegment::Place> place;
    for (int i = 0; i < 8; ++i) {
      segment.acquire(0, "space", std::to_string(i), Mode::kEX, true, place, wake);
    }
    auto* bytes = static_cast<unsigned char*>(memory.base());
    // Behind the head, which is read once.
    const size_t length = 1 + pick(64);
    const size_t at = 4096 + pick(memory.size() - 4096 - length);
    for (size_t i = 0; i < length; ++i) bytes[at + i] = static_cast<unsigned char>(random());
    for (int i = 0; i < 8; ++i) {
      const auto turn = as_a_mount_does(segment, [&] {
        return segment.acquire(1, "space", std::to_string(i), Mode::kCR, true, place, wake);
      });
      if (turn) {
        ASSERT_EQ(*turn, Turn::kRefused) << "round " << round << ", bytes at " << at;
      } else {
        ++said;
      }
    }
  }
  EXPECT_GT(said, 100U);
}

}  // namespace
}  // namespace lockfs::shm::test
