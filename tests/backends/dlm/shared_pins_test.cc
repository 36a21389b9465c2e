// SPDX-License-Identifier: MIT
// Pins that mounts keep together: all hear the same in the same order, some die, some come late.
#include "backends/dlm/shared_pins.h"

#include <gmock/gmock.h>

#include <deque>
#include <map>
#include <random>

namespace lockfs::dlm {
namespace {

// A group as corosync keeps it: one order of messages and of changes of membership for all. Each
// member is where it is in that order; what it sends is put at the end.
class GroupModel {
 public:
  void join(Member who) {
    members_.push_back(who);
    add({{}, {}, members_, {who}});
    pins_[who];
    next_[who] = events_.size() - 1;
  }
  void end(Member who) {
    std::erase(members_, who);
    pins_.erase(who);
    next_.erase(who);
    add({{}, {}, members_, {}});
  }
  void send(Member from, Message message) { add({from, std::move(message), {}, {}}); }
  /// Lets a member see the next thing; false if it has seen all.
  bool step(Member who) {
    if (next_.at(who) == events_.size()) return false;
    const Event event = events_[next_.at(who)++];
    SharedPins& pins = pins_.at(who);
    if (!event.all.empty()) {
      for (const Member& to : pins.members(who, event.all, event.joined)) {
        for (Message& message : pins.say_all(to)) send(who, std::move(message));
      }
    } else if (event.message.kind == Message::Kind::kPins) {
      pins.take(who, event.from, event.message);
    } else {
      pins.change(event.message);
    }
    return true;
  }
  void settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (const Member& who : std::vector(members_)) busy = step(who) || busy;
    }
  }
  SharedPins& of(Member who) { return pins_.at(who); }
  const std::vector<Member>& members() const { return members_; }

 private:
  struct Event {
    Member from;
    Message message;
    std::vector<Member> all;
    std::vector<Member> joined;
  };
  void add(Event event) { events_.push_back(std::move(event)); }

  std::vector<Member> members_;
  std::deque<Event> events_;
  std::map<Member, SharedPins> pins_;
  std::map<Member, size_t> next_;
};

constexpr Member kOne{1, 10};
constexpr Member kTwo{2, 20};
constexpr Member kThree{3, 30};

Message pin(const std::string& name, uid_t uid, bool fresh = true) {
  Message message;
  message.kind = Message::Kind::kPin;
  message.name = name;
  message.pin.uid = uid;
  message.fresh = fresh;
  return message;
}
Message unpin(const std::string& name) {
  Message message;
  message.kind = Message::Kind::kUnpin;
  message.name = name;
  return message;
}

TEST(SharedPins, TheFirstKnowsAllThereIs) {
  GroupModel group;
  group.join(kOne);
  EXPECT_FALSE(group.of(kOne).known());
  group.settle();
  EXPECT_TRUE(group.of(kOne).known());
  EXPECT_EQ(group.of(kOne).change(pin("a", 1)), LockErrc::kOk);
  EXPECT_EQ(group.of(kOne).change(pin("a", 2)), LockErrc::kExists);
  EXPECT_EQ(group.of(kOne).change(pin("a", 2, false)), LockErrc::kOk);
  EXPECT_EQ(group.of(kOne).of("a")->uid, 2U);
  EXPECT_EQ(group.of(kOne).change(unpin("a")), LockErrc::kOk);
  EXPECT_EQ(group.of(kOne).change(unpin("a")), LockErrc::kNotFound);
}

TEST(SharedPins, ANewcomerIsToldByOneAlone) {
  GroupModel group;
  group.join(kOne);
  group.join(kTwo);
  group.settle();
  group.send(kTwo, pin("a", 1));
  group.join(kThree);
  group.settle();
  ASSERT_TRUE(group.of(kThree).known());
  EXPECT_TRUE(group.of(kThree).of("a"));
}

TEST(SharedPins, WhatChangesWhileANewcomerIsToldIsNotLost) {
  GroupModel group;
  group.join(kOne);
  group.settle();
  group.send(kOne, pin("old", 1));
  group.settle();
  group.join(kTwo);
  group.step(kOne);  // It has said what it knows: "old".
  group.send(kOne, unpin("old"));
  group.send(kOne, pin("new", 1));
  group.settle();
  ASSERT_TRUE(group.of(kTwo).known());
  EXPECT_EQ(group.of(kTwo).all(), group.of(kOne).all());
  EXPECT_FALSE(group.of(kTwo).of("old"));
  EXPECT_TRUE(group.of(kTwo).of("new"));
}

TEST(SharedPins, WhenAllWhoKnewHaveDiedTheNextBegins) {
  GroupModel group;
  group.join(kOne);
  group.settle();
  group.join(kTwo);
  group.join(kThree);
  group.end(kOne);  // Before it said anything.
  group.settle();
  EXPECT_TRUE(group.of(kTwo).known());
  EXPECT_TRUE(group.of(kThree).known());
}

// Members that come, die and change pins at random, each as far behind as it likes, agree when
// they have heard all.
TEST(SharedPins, AgreeInEveryOrder) {
  size_t agreed = 0;
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](size_t end) {
      return std::uniform_int_distribution<size_t>(0, end - 1)(random);
    };
    GroupModel group;
    uint32_t last = 0;
    group.join({1, ++last});
    for (int i = 0; i < 200; ++i) {
      const Member who = group.members()[below(group.members().size())];
      const size_t what = below(20);
      const std::string name = "pin" + std::to_string(below(4));
      if (what == 0 && group.members().size() < 5) {
        group.join({static_cast<uint32_t>(1 + below(3)), ++last});
      } else if (what == 1 && group.members().size() > 1) {
        group.end(who);
      } else if (what < 6 && group.of(who).known()) {
        group.send(who,
                   below(2) == 0 ? unpin(name) : pin(name, static_cast<uid_t>(i), below(2) == 0));
      } else {
        group.step(who);
      }
    }
    group.settle();
    for (const Member& who : group.members()) {
      ASSERT_TRUE(group.of(who).known()) << "seed " << seed << " pid " << who.pid;
      ASSERT_EQ(group.of(who).all(), group.of(group.members()[0]).all()) << "seed " << seed;
    }
    agreed += group.members().size() > 1 ? 1 : 0;
  }
  EXPECT_GT(agreed, 100U);
}

}  // namespace
}  // namespace lockfs::dlm
