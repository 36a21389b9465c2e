// SPDX-License-Identifier: MIT
#include "backends/late_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "backends/memory.h"
#include "tests/core/async_backend.h"

namespace lockfs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

// What the table was told.
class Told final : public ClaimEvents {
 public:
  void granted(ClaimId, Mode, TokenBlock) override { acquires.push_back(LockErrc::kOk); }
  void failed(ClaimId, LockErrc why) override { acquires.push_back(why); }
  void contended(ClaimId) override {}
  void lost(ClaimId, std::string_view) override {}
  void reach_changed() override {
    ++reach_changes;
    if (on_reach_change) on_reach_change();
  }
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock>) override {
    answers.emplace_back(query, result);
  }

  std::vector<LockErrc> acquires;
  std::vector<std::pair<QueryId, LockErrc>> answers;
  int reach_changes = 0;
  std::function<void()> on_reach_change;
};

class LateBackendTest : public ::testing::Test {
 protected:
  using Step = std::function<bool()>;
  static constexpr milliseconds kRetry{5};

  /// Runs the loop, once a test: a step is asked again and again until it says true, then the next
  /// one is. False when that took more than ten seconds.
  bool run(const std::vector<Step>& steps) {
    size_t next = 0;
    const TimePoint end = Clock::now() + std::chrono::seconds(10);
    const std::function<void()> look = [&] {
      while (next < steps.size() && steps[next]()) ++next;
      if (next == steps.size() || Clock::now() > end) return loop.stop();
      loop.timers.schedule(Clock::now() + milliseconds(1), look);
    };
    look();
    loop.run();
    return next == steps.size();
  }
  std::unique_ptr<LateBackend> late(LateBackend::Prepare prepare) {
    auto made = std::make_unique<LateBackend>(loop, "file:/srv/x", "it was not there",
                                              std::move(prepare), kRetry);
    made->start(told);
    return made;
  }
  static std::string state(const LateBackend& backend) { return backend.status().front().second; }

  EventLoop loop;
  Told told;
};

// A backend that notes what is joined and left, and answers by `answers`, then by kOk.
class JoiningBackend final : public AsyncBackend {
 public:
  explicit JoiningBackend(std::vector<LockErrc>& answers) : answers_(answers) {
    change_traits().joins = true;
  }
  std::string trouble() const override { return trouble_; }
  void set_trouble(const std::string& words) { trouble_ = words; }
  void join(QueryId query, std::string_view lockspace, mode_t mode) override {
    joined.emplace_back(lockspace, mode);
    LockErrc answer = LockErrc::kOk;
    if (!answers_.empty()) {
      answer = answers_.front();
      answers_.erase(answers_.begin());
    }
    events().answered(query, answer, {});
  }
  void leave(QueryId query, std::string_view lockspace, bool /*force*/) override {
    left.emplace_back(lockspace);
    events().answered(query, LockErrc::kOk, {});
  }

  std::vector<std::pair<std::string, mode_t>> joined;
  std::vector<std::string> left;

 private:
  std::vector<LockErrc>& answers_;
  std::string trouble_;
};

PreparedBackend memory() {
  return [](EventLoop& /*loop*/) { return std::make_unique<MemoryBackend>(); };
}

TEST_F(LateBackendTest, IsPreparedByAThreadAndMadeOnTheLoop) {
  const auto ours = std::this_thread::get_id();
  std::atomic<bool> waits_on_loop = false;
  bool made_on_loop = false;
  const auto backend = late([&]() -> Prepared {
    waits_on_loop = std::this_thread::get_id() == ours;
    return [&](EventLoop& with) {
      made_on_loop = std::this_thread::get_id() == ours && &with == &loop;
      return std::make_unique<MemoryBackend>();
    };
  });
  EXPECT_EQ(backend->trouble(), "it was not there");
  EXPECT_TRUE(run({[&] { return backend->trouble().empty(); }}));
  EXPECT_FALSE(waits_on_loop);
  EXPECT_TRUE(made_on_loop);
  EXPECT_EQ(backend->traits().name, "memory");
  EXPECT_EQ(told.reach_changes, 1);
  backend->acquire(ClaimId{1}, "shared", "x", Mode::kEX, false);
  EXPECT_THAT(told.acquires, ElementsAre(LockErrc::kOk));
}

TEST_F(LateBackendTest, IsTriedAgainAndSaysWhatWasWrongLast) {
  std::atomic<int> tries = 0;
  const auto backend = late([&]() -> Prepared {
    if (++tries == 3) return memory();
    return tl::make_unexpected("try " + std::to_string(tries));
  });
  EXPECT_TRUE(run(
      {[&] { return backend->trouble() == "try 2"; }, [&] { return backend->trouble().empty(); }}));
}

TEST_F(LateBackendTest, WaitsForNoThreadThatHangs) {
  const auto hangs = std::make_shared<std::promise<void>>();
  auto ended = std::make_shared<std::promise<void>>();
  auto backend = late([hangs, ended, end = hangs->get_future().share()]() -> Prepared {
    end.wait();
    ended->set_value();
    return memory();
  });
  EXPECT_TRUE(run({[&] { return state(*backend).find("has not answered") != std::string::npos; }}));
  EXPECT_THAT(state(*backend), HasSubstr("it was not there"));
  backend->acquire(ClaimId{1}, "shared", "x", Mode::kEX, false);
  backend->inspect(QueryId{7}, "shared", "x");
  EXPECT_THAT(told.acquires, ElementsAre(LockErrc::kUnreachable));
  EXPECT_THAT(told.answers, ElementsAre(std::pair(QueryId{7}, LockErrc::kUnreachable)));
  backend.reset();
  hangs->set_value();
  ended->get_future().wait();
}

// Of lockspaces that the table has joined while there was nothing to join.
class LateJoinTest : public LateBackendTest {
 protected:
  // As the SlotMap of the table gives them.
  static constexpr QueryId kQuery{uint64_t{1} << 32};

  std::unique_ptr<LateBackend> late_joining() {
    return late([this]() -> Prepared {
      if (!there) return tl::make_unexpected("no corosync");
      return [this](EventLoop& /*loop*/) {
        auto made = std::make_unique<JoiningBackend>(answers);
        backend = made.get();
        return made;
      };
    });
  }
  bool is_joined(const std::string& lockspace) const {
    return backend != nullptr && std::any_of(backend->joined.begin(), backend->joined.end(),
                                             [&](const auto& j) { return j.first == lockspace; });
  }

  /// The first join fails; `then` is called before it is tried again.
  void fail_first(std::function<void()> then) {
    answers = {LockErrc::kUnreachable};
    told.on_reach_change = [this, then = std::move(then), done = false]() mutable {
      if (done || !is_joined("a")) return;
      done = true;
      then();
    };
    there = true;
  }

  std::atomic<bool> there = false;
  std::vector<LockErrc> answers;
  JoiningBackend* backend = nullptr;
};

TEST_F(LateJoinTest, TheyAreJoinedWithTheirModesOnceItIsThere) {
  const auto late = late_joining();
  EXPECT_TRUE(late->traits().joins);
  late->join(kQuery, "a", 0770);
  late->join(kQuery, "b", 0700);
  late->join(kQuery, "gone", 0700);
  late->leave(kQuery, "gone", false);
  EXPECT_THAT(told.answers, ElementsAre(std::pair(kQuery, LockErrc::kOk), testing::_, testing::_,
                                        std::pair(kQuery, LockErrc::kOk)));
  told.answers.clear();
  there = true;
  EXPECT_TRUE(run({[&] { return backend != nullptr; }}));
  EXPECT_THAT(backend->joined, ElementsAre(std::pair("a", 0770), std::pair("b", 0700)));
  EXPECT_THAT(told.answers, testing::IsEmpty()) << "the table did not ask";
  EXPECT_EQ(late->trouble(), "");
  late->inspect(kQuery, "a", "x");
  EXPECT_THAT(told.answers, ElementsAre(std::pair(kQuery, LockErrc::kOk)));
  late->leave(kQuery, "a", false);
  EXPECT_THAT(backend->left, ElementsAre("a"));
}

TEST_F(LateJoinTest, OneThatCannotBeJoinedIsTroubleAndTriedAgain) {
  const auto late = late_joining();
  late->join(kQuery, "a", 0777);
  fail_first([&] {
    EXPECT_THAT(late->trouble(), HasSubstr("lockspace a cannot be joined"));
    late->acquire(ClaimId{1}, "a", "x", Mode::kEX, false);
    late->inspect(kQuery, "a", "x");
  });
  EXPECT_TRUE(run({[&] { return late->trouble().empty(); }}));
  EXPECT_EQ(backend->joined.size(), 2U);
  EXPECT_EQ(told.reach_changes, 3);
  EXPECT_THAT(told.acquires, ElementsAre(LockErrc::kUnreachable)) << "not before it was joined";
  EXPECT_EQ(told.answers.back(), std::pair(kQuery, LockErrc::kUnreachable));
  late->acquire(ClaimId{2}, "a", "x", Mode::kEX, false);
  EXPECT_EQ(backend->asks.size(), 1U);
}

TEST_F(LateJoinTest, OneThatWasLeftIsNotTriedAgain) {
  const auto late = late_joining();
  late->join(kQuery, "a", 0777);
  fail_first([&] { late->leave(kQuery, "a", false); });
  int turns = 0;
  EXPECT_TRUE(run({[&] { return is_joined("a"); }, [&] { return ++turns > 50; }}))
      << "many times the time of a retry";
  EXPECT_EQ(backend->joined.size(), 1U);
  EXPECT_EQ(late->trouble(), "");
}

TEST_F(LateJoinTest, NothingIsTriedThatTheBackendKnowsToBeInVain) {
  const auto late = late_joining();
  late->join(kQuery, "a", 0777);
  fail_first([&] { backend->set_trouble("no quorum"); });
  int turns = 0;
  EXPECT_TRUE(run({[&] { return is_joined("a"); }, [&] { return ++turns > 50; },
                   [&] {
                     EXPECT_EQ(backend->joined.size(), 1U);
                     EXPECT_EQ(late->trouble(), "no quorum");
                     backend->set_trouble("");
                     return true;
                   },
                   [&] { return late->trouble().empty(); }}));
  EXPECT_EQ(backend->joined.size(), 2U);
}

}  // namespace
}  // namespace lockfs
