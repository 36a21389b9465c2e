// SPDX-License-Identifier: MIT
// The end of a wait on one node against a release on another: whichever comes first, the lock is
// never granted to two, and can be taken afterwards.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

using std::chrono::microseconds;

constexpr int kRounds = 300;
constexpr int kMostRounds = 1500;

/// How long before the release (less than nothing: after it) the wait is ended, so that both win
/// about as often: later after each end that won, earlier after each grant.
class Offset {
 public:
  explicit Offset(microseconds first) : offset_(first) {}
  void granted(bool was) {
    offset_ = std::clamp(offset_ + (was ? step_ : -step_), -kMost, kMost);
    step_ = std::max(step_ * 9 / 10, microseconds(50));
    was ? ++grants_ : ++ends_;
  }
  microseconds next() {
    return offset_ + microseconds(std::uniform_int_distribution(-100, 100)(random_));
  }
  int rounds() const { return grants_ + ends_; }
  /// Whether both have happened often; or a machine that cannot do it was given many rounds.
  bool enough() const {
    return (rounds() >= kRounds && std::min(grants_, ends_) >= kRounds / 10) ||
           rounds() >= kMostRounds;
  }
  int fewer() const { return std::min(grants_, ends_); }

 private:
  static constexpr microseconds kMost{20000};
  microseconds offset_;
  microseconds step_{500};
  int grants_ = 0;
  int ends_ = 0;
  std::mt19937 random_{1};
};

void busy_for(microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

/// Does the one thing `before` the other; after it if that is less than nothing.
template <typename One, typename Other>
void in_this_order(microseconds before, One one, Other other) {
  if (before >= microseconds(0)) {
    one();
    busy_for(before);
    return other();
  }
  other();
  busy_for(-before);
  one();
}

/// Node 0 holds the lock and lets go, round after round, while a process on node 1 waits for it.
class SharedRaces : public ContractTest {
 protected:
  struct Seen {
    Sole sole;
    Step go;
    Step done;
    std::atomic<int> result{0};
  };

  // Waits once for each step, and lets go of what it was granted.
  std::unique_ptr<Child> waiter(const std::string& command) {
    return std::make_unique<Child>([this, command, path = lock(1, "race")] {
      struct sigaction nothing {};
      nothing.sa_handler = [](int) {};
      sigaction(SIGUSR1, &nothing, nullptr);  // Without SA_RESTART: it ends the wait.
      const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
      while (seen_->go.wait()) {
        seen_->result = write_command(fd, command);
        if (seen_->result == 0) {
          seen_->sole.enter();
          seen_->sole.leave();
          write_command(fd, "UN");
        }
        seen_->done.give();
      }
      return 0;
    });
  }
  void take(int fd) {
    ASSERT_EQ(write_command(fd, "EX timeout=20s"), 0) << "it must be free, or become free";
    EXPECT_GT(token_of(fd), last_token_) << "a grant after another one";
    last_token_ = token_of(fd);
    seen_->sole.enter();
  }
  void let_go(int fd) {
    seen_->sole.leave();
    EXPECT_EQ(write_command(fd, "UN"), 0);
  }

  const Common<Seen> seen_;
  uint64_t last_token_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedRaces, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

TEST_P(SharedRaces, ATimeoutAgainstARelease) {
  if (!world().asks_once()) GTEST_SKIP() << "it asks again each 100 ms";
  const int holder = open_lock(0, "race");
  const auto late = waiter("EX timeout=20ms");
  ASSERT_NO_FATAL_FAILURE(take(holder));
  Offset offset(microseconds(0));
  while (!offset.enough()) {
    seen_->result = -1;
    seen_->go.give();
    // A release before it waits would be taken back before it asks.
    ASSERT_TRUE(eventually(
        [&] { return shown(1, "race", "waiters_total") == "1" || seen_->result != -1; }));
    busy_for(std::max(microseconds(19000) + offset.next(), microseconds(0)));
    let_go(holder);
    ASSERT_NO_FATAL_FAILURE(take(holder));
    ASSERT_TRUE(seen_->done.wait()) << "it hangs";
    const int result = seen_->result;
    ASSERT_TRUE(result == 0 || result == ETIMEDOUT) << result;
    offset.granted(result == 0);
  }
  EXPECT_GE(offset.fewer(), kRounds / 10) << "both must win now and then";
  EXPECT_EQ(seen_->sole.twice(), 0);
}

TEST_P(SharedRaces, ASignalAgainstARelease) {
  const int holder = open_lock(0, "race");
  const auto interrupted = waiter("EX");
  ASSERT_NO_FATAL_FAILURE(take(holder));
  Offset offset(microseconds(0));
  while (!offset.enough()) {
    seen_->go.give();
    ASSERT_TRUE(eventually_waiting(1, "race", 1));
    in_this_order(
        offset.next(), [&] { interrupted->signal(SIGUSR1); }, [&] { let_go(holder); });
    ASSERT_NO_FATAL_FAILURE(take(holder));
    ASSERT_TRUE(seen_->done.wait()) << "it hangs";
    const int result = seen_->result;
    ASSERT_TRUE(result == 0 || result == EINTR) << result;
    offset.granted(result == 0);
  }
  EXPECT_GE(offset.fewer(), kRounds / 10) << "both must win now and then";
  EXPECT_EQ(seen_->sole.twice(), 0);
}

TEST_P(SharedRaces, ASigkillOfTheWaiterAgainstARelease) {
  const int holder = open_lock(0, "race");
  const int other = open_lock(1, "race");
  ASSERT_NO_FATAL_FAILURE(take(holder));
  Offset offset(microseconds(0));
  while (!offset.enough()) {
    seen_->result = -1;
    Child killed([this, path = lock(1, "race")] {
      seen_->result = ask(path, "EX");
      return pause();
    });
    ASSERT_TRUE(eventually_waiting(1, "race", 1));
    ASSERT_EQ(seen_->result, -1) << "granted while node 0 holds";
    in_this_order(
        offset.next(), [&] { killed.signal(SIGKILL); }, [&] { let_go(holder); });
    ASSERT_EQ(end_of(killed), 128 + SIGKILL);
    ASSERT_NO_FATAL_FAILURE(take(holder));
    ASSERT_EQ(write_command(other, "EX try"), EAGAIN) << "node 0 holds";
    const int result = seen_->result;
    ASSERT_LE(result, 0) << "not granted, but refused";
    offset.granted(result == 0);
  }
  EXPECT_GE(offset.fewer(), kRounds / 10) << "both must win now and then";
}

// A conversion that is cancelled leaves what was held, one that was granted is the whole.
TEST_P(SharedRaces, ATimeoutOfAConversionAgainstARelease) {
  if (!world().shares_modes()) GTEST_SKIP() << "to others all it holds is EX";
  const int holder = open_lock(0, "race");
  const int converts = open_lock(1, "race");
  ASSERT_EQ(write_command(converts, "PR"), 0);
  Offset offset(microseconds(0));
  while (!offset.enough()) {
    ASSERT_EQ(write_command(holder, "PR timeout=20s"), 0);
    Child child([&] { return write_command(converts, "EX timeout=2ms"); });
    busy_for(std::max(microseconds(3000) + offset.next(), microseconds(0)));
    ASSERT_EQ(write_command(holder, "UN"), 0);
    const int result = end_of(child);
    ASSERT_TRUE(result == 0 || result == ETIMEDOUT) << result;
    if (result == 0) {
      ASSERT_EQ(write_command(holder, "PR try"), EAGAIN) << "beside EX";
    } else {  // If the grant was faster, EX is given back a moment later.
      ASSERT_TRUE(eventually([&] { return write_command(holder, "PR try") == 0; }));
    }
    ASSERT_EQ(write_command(converts, "PR"), 0);
    ASSERT_EQ(write_command(holder, "UN"), 0);
    offset.granted(result == 0);
  }
  EXPECT_GE(offset.fewer(), kRounds / 10) << "both must win now and then";
}

TEST_P(SharedRaces, OfTwoThatMakeALockAtOnceOneSucceeds) {
  const Common<std::array<Seen, 2>> both;
  const auto maker = [&](size_t i) {
    return std::make_unique<Child>([&, i, path = lock(i, "made")] {
      Seen& mine = both->at(i);
      while (mine.go.wait()) {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
        mine.result = fd >= 0 ? 0 : errno;
        mine.done.give();
        if (!mine.go.wait()) return 1;
        if (fd >= 0) close(fd);
        mine.done.give();
      }
      return 0;
    });
  };
  const auto one = maker(0);
  const auto two = maker(1);
  const auto step = [&] {
    for (Seen& seen : *both) seen.go.give();
    return (*both)[0].done.wait() && (*both)[1].done.wait();
  };
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(step());
    const int made = (both->at(0).result == 0) + (both->at(1).result == 0);
    ASSERT_EQ(made, 1) << "errno " << both->at(0).result << " and " << both->at(1).result;
    ASSERT_EQ(both->at(0).result + both->at(1).result, EEXIST);
    ASSERT_TRUE(step());
    for (const size_t at : {0, 1}) {
      ASSERT_TRUE(eventually([&] { return access(lock(at, "made").c_str(), F_OK) != 0; }));
    }
  }
}

}  // namespace
}  // namespace lockfs::test
