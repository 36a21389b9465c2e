// SPDX-License-Identifier: MIT
// lockctl waits: the tree, the graph, deadlocks.
#include <nlohmann/json.hpp>

#include "ctl/waits_tree.h"
#include "tests/ctl/program.h"
#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class LockctlWaits : public LockctlTest {
 protected:
  using Actors = std::vector<std::unique_ptr<Actor>>;
  /// Actor 0 holds l0, 1 holds l1 and waits for l0, and so on.
  Actors chain(size_t length) const {
    Actors all;
    for (size_t i = 0; i < length; ++i) {
      all.push_back(std::make_unique<Actor>());
      for (size_t k = 0; k < length; ++k) all.back()->open(mount_.lock("l" + std::to_string(k)));
      EXPECT_EQ(all.back()->write(int(i), "EX"), 0);
    }
    for (size_t i = 1; i < length; ++i) {
      all[i]->begin_write(int(i) - 1, "EX");
      EXPECT_TRUE(eventually_waiting(i));
    }
    return all;
  }
  static std::string pid_of(const Actor& actor) { return "pid " + std::to_string(actor.pid()); }
};

TEST_F(LockctlWaits, SaysWhenNobodyWaits) {
  const Fd a = hold("a", "EX");
  const Ended waits = lockctl({"waits"});
  EXPECT_EQ(waits.status, 0);
  EXPECT_EQ(waits.out, "nobody waits\n");
  EXPECT_TRUE(json::parse(lockctl({"waits", "--json"}).out).at("waits").empty());
}

TEST_F(LockctlWaits, AChainIsATreeBelowWhoWaitsForNobody) {
  const auto all = chain(3);
  const std::string out = lockctl({"waits"}).out;
  EXPECT_TRUE(out.starts_with(pid_of(*all[0]) + " (ctl_tests)\n")) << out;
  EXPECT_THAT(out, HasSubstr("\n└─ " + pid_of(*all[1]) + " (ctl_tests) waits for default/l0 (EX)"));
  EXPECT_THAT(out,
              HasSubstr("\n   └─ " + pid_of(*all[2]) + " (ctl_tests) waits for default/l1 (EX)"));
  EXPECT_THAT(out, Not(HasSubstr("DEADLOCK")));
}

TEST_F(LockctlWaits, ADeadlockIsMarked) {
  auto all = chain(2);
  ASSERT_EQ(all[1]->result(0), std::nullopt);
  auto other = std::make_unique<Actor>();  // A chain beside it, which is none.
  ASSERT_EQ(other->add_thread(), 0);
  ASSERT_EQ(other->open(mount_.lock("x")), 0);
  ASSERT_EQ(other->open(mount_.lock("y")), 0);
  auto third = std::make_unique<Actor>();
  ASSERT_EQ(third->open(mount_.lock("x")), 0);
  ASSERT_EQ(third->open(mount_.lock("y")), 0);
  ASSERT_EQ(other->write(0, "EX"), 0);
  ASSERT_EQ(third->write(1, "EX"), 0);
  other->begin_write(1, "EX");
  ASSERT_TRUE(eventually_waiting(2));
  third->begin_write(0, "EX");
  ASSERT_TRUE(eventually_waiting(3));
  const std::string out = lockctl({"waits"}).out;
  EXPECT_THAT(out, ContainsRegex(pid_of(*third) + " .*waits for default/x .*DEADLOCK"));
  EXPECT_THAT(out, ContainsRegex(pid_of(*other) + " .*waits for default/y .*DEADLOCK"));
  EXPECT_THAT(out, ContainsRegex(pid_of(*all[1]) + " .*waits for default/l0 .*held EX\n"));
  const std::string dot = lockctl({"waits", "--dot"}).out;
  EXPECT_THAT(dot, AllOf(HasSubstr("digraph"), HasSubstr("color=red")));
  EXPECT_EQ(json::parse(lockctl({"waits", "--json"}).out).at("waits").size(), 3U);
}

TEST_F(LockctlWaits, OfOneLockShowsWhatIsLinkedToIt) {
  const auto all = chain(3);
  const Fd apart = hold("apart", "EX");
  Program waiter(line({"run", "apart", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(3));
  const std::string linked = lockctl({"waits", "l0"}).out;
  EXPECT_THAT(linked, AllOf(HasSubstr("l0"), HasSubstr("l1"), Not(HasSubstr("apart"))));
  EXPECT_THAT(lockctl({"waits", "apart"}).out, AllOf(HasSubstr("apart"), Not(HasSubstr("l0"))));
  EXPECT_EQ(lockctl({"waits", "nobody"}).out, "nobody waits\n");
}

TEST_F(LockctlWaits, ANameThatIsNotUtf8IsFound) {
  const std::string name = "bad\xff\xc3";
  const Fd holder = hold(name, "EX");
  Program waiter(line({"run", name, "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_THAT(lockctl({"waits", name}).out,
              HasSubstr("└─ pid " + std::to_string(waiter.pid()) + " (lockctl) waits for"));
}

TEST_F(LockctlWaits, DotNamesProcessesAndLocks) {
  const auto all = chain(2);
  const std::string from = std::to_string(all[1]->pid());
  const std::string to = std::to_string(all[0]->pid());
  EXPECT_THAT(lockctl({"waits", "--dot"}).out,
              AllOf(HasSubstr("  " + from + " -> " + to + " [label=\"default/l0 EX\"];"),
                    HasSubstr("  " + to + " [label=\"pid " + to + " (ctl_tests)\"];")));
  EXPECT_EQ(lockctl({"waits", "--dot", "--json"}).status, 64);
}

TEST_F(LockctlWaits, WhoWaitsInTheQueueStandsBelowTheHolder) {
  const Fd holder = hold("a", "EX");
  Program first(line({"run", "a", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(1));
  Program second(line({"run", "a", "--", "true"}), here());
  ASSERT_TRUE(eventually_waiting(2));
  const std::string out = lockctl({"waits"}).out;
  EXPECT_THAT(out, HasSubstr("├─ pid " + std::to_string(first.pid())));
  EXPECT_THAT(out, HasSubstr("└─ pid " + std::to_string(second.pid())));
}

TEST(LockctlWaitsText, ProcessesOutOfSightAreToldApart) {
  const auto wait = [](const std::string& lock, const std::string& comm) {
    const json blocker = {{"pid", 0}, {"comm", ""}, {"holds", "EX"}, {"wants", "none"}};
    return json{{"lockspace", "default"}, {"lock", lock}, {"pid", 0},
                {"comm", comm},           {"mode", "EX"}, {"waits_for", json::array({blocker})}};
  };
  const auto waits =
      ctl::to_waits({{"waits", {wait("a", "one"), wait("a", "two"), wait("b", "three")}}});
  const std::string tree = ctl::waits_as_tree(waits, ctl::Style(false));
  EXPECT_THAT(tree, AllOf(HasSubstr("a process out of sight, the holder of default/a\n├─ one"),
                          HasSubstr("a process out of sight, the holder of default/b\n└─ three"),
                          Not(HasSubstr("see above")), Not(HasSubstr("pid 0"))));
  const std::string dot = ctl::waits_as_dot(waits);
  EXPECT_THAT(
      dot, AllOf(HasSubstr("\"wait 1\" -> \"the holder of default/a\""),
                 HasSubstr("\"wait 2\" -> \"the holder of default/b\""), Not(HasSubstr("0 -> 0"))));
}

TEST(LockctlWaitsText, KeysMayBeAbsent) {
  const json raw = {{"waits", {{{"lock", "a"}, {"pid", 7}, {"waits_for", json::array()}}}}};
  const auto waits = ctl::to_waits(raw);
  ASSERT_EQ(waits.size(), 1U);
  EXPECT_THAT(ctl::waits_as_tree(waits, ctl::Style(false)), HasSubstr("pid 7 waits for"));
}

}  // namespace
}  // namespace lockfs::test
