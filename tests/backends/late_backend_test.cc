// SPDX-License-Identifier: MIT
#include "backends/late_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "backends/memory.h"

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
  void reach_changed() override { ++reach_changes; }
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock>) override {
    answers.emplace_back(query, result);
  }

  std::vector<LockErrc> acquires;
  std::vector<std::pair<QueryId, LockErrc>> answers;
  int reach_changes = 0;
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

}  // namespace
}  // namespace lockfs
