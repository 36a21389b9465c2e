// SPDX-License-Identifier: MIT
// What the table asks beyond this node, and tells: looks, pins, and who holds under a claim.
#include <deque>
#include <optional>

#include "tests/core/async_backend.h"
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
constexpr auto kOk = LockErrc::kOk;
constexpr Pin kPin = {1000, 0640, true};

/// Notes questions; a test answers them through events().
class AskedBackend final : public AsyncBackend {
 public:
  struct Question {
    std::string verb;
    QueryId id;
    std::string name;
    Pin pin;
    bool fresh = false;
  };
  AskedBackend() { change_traits().sees_other_nodes = true; }
  void describe(ClaimId claim, const Presence& who) override { described.emplace_back(claim, who); }
  void inspect(QueryId query, std::string_view, std::string_view name) override {
    questions.push_back({"inspect", query, std::string(name), {}});
  }
  void list(QueryId query, std::string_view) override {
    questions.push_back({"list", query, {}, {}});
  }
  void pin(QueryId query, std::string_view, std::string_view name, const Pin& pin,
           bool fresh) override {
    questions.push_back({"pin", query, std::string(name), pin, fresh});
  }
  void unpin(QueryId query, std::string_view, std::string_view name) override {
    questions.push_back({"unpin", query, std::string(name), {}});
  }
  /// Answers the oldest question.
  void answer(LockErrc result, std::vector<RemoteLock> locks = {}) {
    const QueryId id = questions.front().id;
    questions.pop_front();
    events().answered(id, result, std::move(locks));
  }

  std::deque<Question> questions;
  std::vector<std::pair<ClaimId, Presence>> described;
};

struct HasAskedBackend {
  AskedBackend backend;
};

class LockTableQuery : private HasAskedBackend, public TableWorldOn {
 protected:
  LockTableQuery() : TableWorldOn(HasAskedBackend::backend) {}
  AskedBackend& backend() { return HasAskedBackend::backend; }
  /// Looks at a name; what was seen is in `seen` once it is answered.
  void look(std::string_view name) {
    seen.reset();
    table.look(space, name, [this](LockErrc result, const RemoteLock& lock) {
      seen = {result, lock};
    });
  }
  std::optional<std::pair<LockErrc, RemoteLock>> seen;
};

TEST_F(LockTableQuery, ALookIsAnsweredWhenTheBackendAnswers) {
  look("a");
  ASSERT_THAT(backend().questions, SizeIs(1));
  EXPECT_EQ(backend().questions.front().name, "a");
  EXPECT_FALSE(seen);
  RemoteClaim claim;
  claim.mode = Mode::kPR;
  backend().answer(kOk, {{"a", std::nullopt, {claim}}});
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->first, kOk);
  EXPECT_TRUE(seen->second.held());
}

TEST_F(LockTableQuery, ALookAtAFreeNameSeesNothing) {
  look("a");
  backend().answer(kOk);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->second.name, "a");
  EXPECT_FALSE(seen->second.held());
}

TEST_F(LockTableQuery, OneThatOnlyWaitsElsewhereDoesNotHold) {
  RemoteClaim claim;
  claim.waiting = true;
  look("a");
  backend().answer(kOk, {{"a", std::nullopt, {claim}}});
  EXPECT_FALSE(seen->second.held());
}

TEST_F(LockTableQuery, ALookEndsInTimeWithoutAnAnswer) {
  look("a");
  timers.advance(timers.now() + LockTable::kLookTime - milliseconds(1));
  EXPECT_FALSE(seen);
  timers.advance(timers.now() + milliseconds(1));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->first, LockErrc::kTimedOut);
  seen.reset();
  backend().answer(kOk);
  EXPECT_FALSE(seen) << "a late answer is harmless";
}

TEST_F(LockTableQuery, ALookShowsAPinOfAnotherNodeAndItsEnd) {
  look("a");
  backend().answer(kOk, {{"a", kPin, {}}});
  ASSERT_NE(table.find(space, "a"), nullptr);
  EXPECT_EQ(lock().pin, kPin);
  EXPECT_TRUE(lock().visible());
  look("a");
  backend().answer(LockErrc::kUnreachable);
  EXPECT_EQ(lock().pin, kPin) << "nobody could tell, so nothing is forgotten";
  look("a");
  backend().answer(kOk);
  EXPECT_FALSE(lock().pin);
}

TEST_F(LockTableQuery, AListShowsThePinsOfAllNodesAndNoOthers) {
  look("gone");
  backend().answer(kOk, {{"gone", kPin, {}}});
  size_t told = 0;
  table.look_all(space,
                 [&](LockErrc, const std::vector<RemoteLock>& locks) { told = locks.size(); });
  backend().answer(kOk, {{"a", kPin, {}}, {"b", std::nullopt, {RemoteClaim{}}}});
  EXPECT_EQ(told, 2U);
  EXPECT_TRUE(lock("a").visible());
  EXPECT_FALSE(lock("gone").visible());
  EXPECT_EQ(table.find(space, "b"), nullptr) << "what others hold needs no record here";
}

TEST_F(LockTableQuery, APinIsThereWhenTheBackendSaysSo) {
  std::vector<LockErrc> told;
  const auto tell = [&](LockErrc result) { told.push_back(result); };
  table.pin(space, "1", kPin, true, tell);
  EXPECT_TRUE(backend().questions.front().fresh);
  EXPECT_EQ(backend().questions.front().pin, kPin);
  EXPECT_THAT(told, IsEmpty());
  backend().answer(LockErrc::kExists);
  EXPECT_EQ(table.find(space, "1"), nullptr);
  table.pin(space, "1", kPin, true, tell);
  backend().answer(kOk);
  EXPECT_TRUE(lock("1").visible());
  table.unpin(space, "1", tell);
  EXPECT_TRUE(lock("1").visible()) << "not gone until all know";
  backend().answer(kOk);
  EXPECT_FALSE(lock("1").visible());
  EXPECT_THAT(told, ElementsAre(LockErrc::kExists, kOk, kOk));
}

TEST_F(LockTableQuery, APinBeyondTheUsersLimitIsNotAskedFor) {
  table.quota.limits = {1, 1, 1};
  table.pin(space, "1", kPin, true, [](LockErrc) {});
  backend().answer(kOk);
  std::optional<LockErrc> told;
  table.pin(space, "2", kPin, true, [&](LockErrc result) { told = result; });
  EXPECT_EQ(told, LockErrc::kLimit);
  EXPECT_THAT(backend().questions, IsEmpty());
  look("3");
  backend().answer(kOk, {{"3", kPin, {}}});
  look("3");
  backend().answer(kOk);
  EXPECT_FALSE(table.quota.may_take(1000, Quota::kNames)) << "others' pins come and go beside it";
}

TEST_F(LockTableQuery, ALockspaceThatIsGoneAsksNothingOfItsAnswer) {
  Lockspace& other = table.add_lockspace("other", backend());
  table.pin(other, "1", kPin, true, [this](LockErrc result) { seen = {result, {}}; });
  EXPECT_EQ(table.remove_lockspace(other), kOk);
  backend().answer(kOk);
  ASSERT_TRUE(seen);
}

TEST_F(LockTableQuery, WhoHoldsForAWhileIsTold) {
  table.host = "here";
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  backend().grant();
  EXPECT_THAT(backend().described, IsEmpty());
  timers.advance(timers.now() + LockTable::kDescribeAfter);
  ASSERT_THAT(backend().described, SizeIs(1));
  EXPECT_EQ(backend().described[0].first, lock().claim->id);
  EXPECT_EQ(backend().described[0].second.host, "here");
  EXPECT_EQ(backend().described[0].second.comm, "fake");
  EXPECT_EQ(backend().described[0].second.more, 0U);
}

TEST_F(LockTableQuery, WhoHoldsForAMomentIsNot) {
  const OwnerId owner = open();
  EXPECT_EQ(ask(owner, Mode::kEX), std::nullopt);
  backend().grant();
  table.release(owner);
  timers.advance(timers.now() + LockTable::kDescribeAfter);
  EXPECT_THAT(backend().described, IsEmpty());
}

TEST_F(LockTableQuery, AnotherHolderUnderTheClaimIsTold) {
  const OwnerId first = open();
  const OwnerId second = open();
  EXPECT_EQ(ask(first, Mode::kPR), std::nullopt);
  backend().grant();
  EXPECT_EQ(ask(second, Mode::kPR), kOk);
  timers.advance(timers.now() + LockTable::kDescribeAfter);
  ASSERT_THAT(backend().described, SizeIs(1));
  EXPECT_EQ(backend().described[0].second.more, 1U);
  table.release(first);
  timers.advance(timers.now() + LockTable::kDescribeAfter);
  ASSERT_THAT(backend().described, SizeIs(2));
  EXPECT_EQ(backend().described[1].second.more, 0U);
}

}  // namespace
}  // namespace lockfs
