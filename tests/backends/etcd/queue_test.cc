// SPDX-License-Identifier: MIT
// The rules of the keys of one lock, under all delays that there may be: nodes that decide by what
// they have seen, some of it long ago, and a store that does one transaction after the other.
#include "backends/etcd/queue.h"

#include <gmock/gmock.h>

#include <array>
#include <random>
#include <string>
#include <vector>

namespace lockfs::etcd {
namespace {

using testing::ElementsAre;

constexpr std::array kModes = {Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};

Entry key(const std::string& owner, int64_t create, Mode mode) {
  Entry entry;
  entry.owner = owner;
  entry.create = entry.mod = create;
  entry.mode = mode;
  return entry;
}

TEST(Queue, AValueIsReadAsItWasWritten) {
  for (const bool converted : {false, true}) {
    for (const auto to : {std::optional<Mode>(), std::optional(Mode::kEX)}) {
      for (const std::string words : {"", "host=a pid=7", "converted host=a"}) {
        Entry entry = key("a", 1, Mode::kPR);
        entry.to = to;
        entry.converted = converted;
        entry.words = words;
        if (words.starts_with("converted") && !converted) continue;  // presence_words has no such.
        Entry read = key("a", 1, Mode::kCR);
        read_value(value_of(entry), read);
        EXPECT_EQ(read.mode, Mode::kPR);
        EXPECT_EQ(read.to, to);
        EXPECT_EQ(read.converted, converted);
        EXPECT_EQ(read.words, words);
        EXPECT_FALSE(read.foreign);
      }
    }
  }
}

TEST(Queue, WhatNoMountWroteAsksForEverything) {
  for (const std::string value :
       {"", "x", "lockfs", "lockfs ", "lockfs NL -", "lockfs XX -", "lockfs7 PR -"}) {
    Entry entry = key("a", 1, Mode::kCR);
    read_value(value, entry);
    EXPECT_TRUE(entry.foreign) << value;
    EXPECT_EQ(entry.mode, Mode::kEX) << value;
  }
}

TEST(Queue, WhoIsNotGrantedWaitsForAConversionThatCameLater) {
  Queue queue;
  queue.put(key("x", 1, Mode::kCW));
  queue.put(key("waits", 2, Mode::kPR));
  queue.put(key("converts", 3, Mode::kCR));
  const auto conversion = queue.convertible(*queue.find("converts"), Mode::kCW);
  EXPECT_EQ(conversion.turn, Queue::Turn::kNow);
  EXPECT_THAT(conversion.guards, ElementsAre(queue.find("x")));
  Entry converted = key("converts", 3, Mode::kCW);
  converted.converted = true;
  converted.mod = 4;
  queue.put(converted);
  queue.erase("x");
  EXPECT_EQ(queue.blocker(*queue.find("waits")), queue.find("converts"));
  EXPECT_EQ(queue.blocker(*queue.find("converts")), nullptr);
}

TEST(Queue, LacksWhatWasThereBeforeItsRevisionAndIsNotHere) {
  Queue here;
  here.put(key("a", 1, Mode::kPR));
  Queue now = here;
  EXPECT_FALSE(here.lacks(now, 5));
  now.put(key("b", 4, Mode::kPR));
  EXPECT_FALSE(here.lacks(now, 3)) << "it is on its way";
  EXPECT_TRUE(here.lacks(now, 4));
  now.erase("b");
  Entry changed = key("a", 1, Mode::kEX);
  changed.mod = 4;
  now.put(changed);
  EXPECT_FALSE(here.lacks(now, 3));
  EXPECT_TRUE(here.lacks(now, 4));
  EXPECT_FALSE(now.lacks(Queue(), 9)) << "what is gone may have gone later";
}

/// One lock in a store, and nodes that see it late.
class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) { seen_by_.resize(1); }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step(nodes_.at(below(kNodes)));
    // Without new requests, and with all news, somebody always gets on.
    quiet_ = true;
    for (int i = 0; i < 10000 && !testing::Test::HasFailure(); ++i) {
      step(nodes_.at(below(kNodes)));
    }
    for (const Node& node : nodes_) EXPECT_EQ(node.own.create, 0) << "stuck: " << words(node);
  }
  uint64_t grants() const { return grants_; }
  uint64_t conversions() const { return conversions_; }

 private:
  static constexpr size_t kNodes = 5;
  struct Node {
    bool foreign = false;
    size_t seen = 0;  ///< Which revision.
    Entry own;
    std::optional<Mode> held;
    std::optional<Mode> wants;
    bool leaves = false;  ///< Its key is to go, when that is heard of.
  };

  static std::string words(const Node& node) {
    const auto name = [](const std::optional<Mode>& mode) {
      return std::string(mode ? mode_name(*mode) : "-");
    };
    return node.own.owner + " of " + std::to_string(node.own.create) + "/" +
           std::to_string(node.own.mod) + " " + value_of(node.own) + ", holds " + name(node.held) +
           ", wants " + name(node.wants);
  }
  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  Mode any_mode() { return kModes.at(below(kModes.size())); }
  const Queue& now() const { return seen_by_.back(); }
  int64_t revision() const { return static_cast<int64_t>(seen_by_.size()) - 1; }

  void store(Node& node, Entry entry) {
    entry.mod = revision() + 1;
    if (entry.create == 0) entry.create = entry.mod;
    Queue next = now();
    next.put(entry);
    node.own = entry;
    seen_by_.push_back(std::move(next));
  }

  void step(Node& node) {
    const auto index = static_cast<size_t>(&node - nodes_.data());
    node.foreign = index == 0;
    const size_t late = quiet_ ? 0 : std::min<size_t>(below(4), seen_by_.size() - 1);
    node.seen = std::max(node.seen, seen_by_.size() - 1 - late);
    if (node.leaves) return leave(node);
    if (node.own.create == 0) return ask(node, index);
    if (!node.held) return wait(node);
    if (node.wants) return convert(node);
    const unsigned dice = quiet_ ? 0 : below(4);
    if (dice == 0) {
      node.held.reset();
      node.leaves = true;
    } else if (!node.foreign && dice < 3) {
      node.wants = any_mode();
    } else if (!node.foreign) {  // Who holds it is shown.
      Entry entry = node.own;
      entry.mode = *node.held;
      entry.words = std::to_string(below(100));
      store(node, entry);
    }
  }

  void leave(Node& node) {
    if (below(3) != 0) return;
    Queue next = now();
    next.erase(node.own.owner);
    seen_by_.push_back(std::move(next));
    node = Node();
  }

  void ask(Node& node, size_t index) {
    if (quiet_) return;
    Entry entry;
    entry.owner = std::to_string(index);
    entry.mode = node.foreign ? Mode::kEX : any_mode();
    node.wants = entry.mode;
    store(node, entry);
    if (now().blocker(node.own) == nullptr) grant(node, node.own.create);
  }

  void wait(Node& node) {
    if (!quiet_ && below(20) == 0) {
      node.leaves = true;
      return;
    }
    const Queue& seen = seen_by_.at(node.seen);
    if (static_cast<int64_t>(node.seen) < node.own.create || seen.blocker(node.own) != nullptr) {
      return;
    }
    const bool late = converted_ > node.own.create;
    if (late && !node.foreign && is_exclusive(*node.wants)) {
      Entry entry = node.own;
      entry.converted = true;
      return take_token(node, entry);
    }
    grant(node, late ? 0 : node.own.create);
  }

  void convert(Node& node) {
    const Mode to = *node.wants;
    if (covers(*node.held, to) && !is_exclusive(to)) {  // At once; the store hears of it later.
      node.held = to;
      node.wants.reset();
      return;
    }
    Entry entry = node.own;
    entry.mode = to;
    entry.to.reset();
    entry.converted = true;
    if (covers(node.own.mode, to)) return take_token(node, entry);
    if (static_cast<int64_t>(node.seen) < node.own.mod) return;
    const Queue& seen = seen_by_.at(node.seen);
    const auto conversion = seen.convertible(node.own, to);
    if (conversion.turn == Queue::Turn::kNow) {
      if (!holds(conversion, node)) return;
      ++conversions_;
      return take_token(node, entry);
    }
    const bool gives_up = !quiet_ && below(30) == 0;
    if (gives_up || (conversion.turn == Queue::Turn::kDeadlock && node.own.to == to)) {
      node.wants.reset();
      if (!node.own.to) return;
      Entry back = node.own;
      back.to.reset();
      return store(node, back);
    }
    if (node.own.to == to) return;
    Entry announced = node.own;
    announced.to = to;
    store(node, announced);
  }

  void take_token(Node& node, const Entry& entry) {
    store(node, entry);
    converted_ = node.own.mod;
    grant(node, converted_);
  }

  // As the transaction compares it.
  bool holds(const Queue::Conversion& conversion, const Node& node) const {
    for (size_t i = 0; i < kNodes; ++i) {
      const Entry* entry = now().find(std::to_string(i));
      if (entry != nullptr && entry->mod > static_cast<int64_t>(node.seen)) return false;
    }
    for (const Entry* guard : conversion.guards) {
      const Entry* still = now().find(guard->owner);
      if (still == nullptr || still->mod != guard->mod) return false;
    }
    return true;
  }

  // A token of 0 is one that nobody counts: etcdctl's, when a conversion came between.
  void grant(Node& node, int64_t token) {
    node.held = *node.wants;
    node.wants.reset();
    ++grants_;
    for (const Node& other : nodes_) {
      if (&other == &node || !other.held) continue;
      ASSERT_TRUE(compatible(*other.held, *node.held))
          << mode_name(*other.held) << " and " << mode_name(*node.held) << " at " << revision();
    }
    if (!is_exclusive(*node.held) || token == 0) return;
    ASSERT_GT(token, last_token_);
    last_token_ = token;
  }

  std::mt19937_64 random_;
  std::vector<Queue> seen_by_;  ///< The lock at each revision.
  std::array<Node, kNodes> nodes_;
  int64_t last_token_ = 0;
  int64_t converted_ = 0;  ///< The last one of a conversion.
  uint64_t grants_ = 0;
  uint64_t conversions_ = 0;
  bool quiet_ = false;
};

TEST(Queue, NoDelayGrantsWhatDoesNotGoTogetherAndNobodyIsStuck) {
  uint64_t grants = 0;
  uint64_t conversions = 0;
  for (uint64_t seed = 1; seed <= 400 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed);
    simulation.run(4000);
    grants += simulation.grants();
    conversions += simulation.conversions();
  }
  std::printf("%lu grants, %lu of them conversions that take more\n", grants, conversions);
  EXPECT_GT(conversions, 10000U);
}

}  // namespace
}  // namespace lockfs::etcd
