// SPDX-License-Identifier: MIT
// Both nodes under heavy load: random modes, and daemons that are killed and stopped in the midst.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/mode.h"
#include "tests/contract/witness.h"
#include "tests/contract/world.h"

namespace lockfs::test {
namespace {

constexpr size_t kLocks = 3;
constexpr std::array kModes = {Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};
constexpr const char* kOneNode = "one mount has no other";

class SharedStorms : public ContractTest {
 protected:
  std::string storm_lock(size_t node, size_t at) {
    return lock(node, "storm" + std::to_string(at));
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedStorms, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

/// Who holds what of one lock at this moment. Who is granted a mode says so, and takes it back
/// before it gives the mode up: those who are noted hold.
class Holders {
 public:
  void note(Mode mode) {
    ++count_.at(static_cast<size_t>(mode));
    for (const Mode other : kModes) {
      const int there = count_.at(static_cast<size_t>(other)) - (other == mode ? 1 : 0);
      if (there > 0 && !compatible(mode, other)) ++wrong_;
    }
  }
  void forget(Mode mode) { --count_.at(static_cast<size_t>(mode)); }
  /// Of a holder of PW or EX: it is alone in that.
  void note_token(uint64_t token) {
    if (token <= last_token_.exchange(token)) ++stale_;
  }
  int wrong() const { return wrong_; }
  int stale() const { return stale_; }

 private:
  std::array<std::atomic<int>, kModeCount> count_{};
  std::atomic<uint64_t> last_token_{0};
  std::atomic<int> wrong_{0};
  std::atomic<int> stale_{0};
};

/// Takes a lock in a random mode, converts it now and then, and gives it up. What ends it: an
/// errno that nobody expects.
class Worker {
 public:
  Worker(std::array<Holders, kLocks>& holders, std::array<std::string, kLocks> paths, unsigned seed)
      : holders_(holders), paths_(std::move(paths)), random_(seed) {}

  int once() {
    const size_t at = below(kLocks);
    const int fd = open(paths_.at(at).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return errno;
    const int result = use(fd, holders_.at(at));
    close(fd);
    return result;
  }
  int granted() const { return granted_; }

 private:
  size_t below(size_t end) { return std::uniform_int_distribution<size_t>(0, end - 1)(random_); }
  int ask_for(int fd, Mode mode) {
    constexpr std::array kHow = {" try", " timeout=1ms", " timeout=60s", ""};
    return write_command(fd, std::string(mode_name(mode)) + kHow.at(below(kHow.size())));
  }
  static bool expected(int result) {
    return result == EAGAIN || result == ETIMEDOUT || result == EDEADLK;
  }

  int use(int fd, Holders& holders) {
    Mode mode = kModes.at(below(kModes.size()));
    int result = ask_for(fd, mode);
    if (result != 0) return expected(result) ? 0 : result;
    ++granted_;
    holders.note(mode);
    if (is_exclusive(mode)) holders.note_token(token_of(fd));
    if (below(2) == 0) result = convert(fd, holders, mode);
    if (below(3) == 0) sched_yield();
    holders.forget(mode);
    return expected(result) ? 0 : result;
  }

  int convert(int fd, Holders& holders, Mode& mode) {
    const Mode before = mode;
    const Mode to = kModes.at(below(kModes.size()));
    const bool grows = covers(to, before);
    if (!grows) holders.forget(before);  // It may be weaker, or other, before we are told.
    const int result = ask_for(fd, to);
    if (result == 0) {
      if (grows) holders.forget(before);
      mode = to;
    }
    if (!grows || result == 0) holders.note(mode);
    if (result == 0 && is_exclusive(to) && !is_exclusive(before)) {
      holders.note_token(token_of(fd));
    }
    return result;
  }

  std::array<Holders, kLocks>& holders_;
  std::array<std::string, kLocks> paths_;
  std::mt19937 random_;
  int granted_ = 0;
};

TEST_P(SharedStorms, RandomModesAreHeldAsTheDlmAllows) {
  constexpr int kTimes = 400;
  const Common<std::array<Holders, kLocks>> holders;
  std::vector<std::unique_ptr<Child>> children;
  for (unsigned i = 0; i < 6; ++i) {
    children.push_back(std::make_unique<Child>([&, i] {
      Worker worker(*holders, {storm_lock(i % 2, 0), storm_lock(i % 2, 1), storm_lock(i % 2, 2)},
                    i);
      int wrong = 0;
      for (int n = 0; n < kTimes && wrong == 0; ++n) wrong = worker.once();
      if (wrong == 0 && worker.granted() < kTimes / 10) wrong = ENODATA;  // It proves too little.
      return wrong;
    }));
  }
  EXPECT_TRUE(all_end_well(children));
  for (const Holders& lock : *holders) {
    EXPECT_EQ(lock.wrong(), 0) << "grants beside others that they exclude";
    EXPECT_EQ(lock.stale(), 0) << "tokens that did not grow";
  }
  for (size_t i = 0; i < kLocks; ++i) {
    EXPECT_EQ(ask(storm_lock(i % 2, i), "EX timeout=10s"), 0) << "nothing is left";
  }
}

/// Processes of node 1 that add to numbers, each protected by a lock, while node 0 has load, too.
/// An errno ends them, except `excused`: then they try again.
class Adders {
 public:
  static constexpr size_t kAdders = 2;

  explicit Adders(const std::array<std::string, kLocks>& paths, int excused = 0)
      : excused_(excused) {
    for (size_t i = 0; i < kAdders; ++i) {
      children_.push_back(std::make_unique<Child>([this, paths, i] { return add(paths, i); }));
    }
  }
  int added() const { return std::accumulate(seen_->added.begin(), seen_->added.end(), 0); }
  bool go_on(int more, double seconds = 30) const {
    const int before = added();
    return eventually([&] { return added() >= before + more; }, seconds);
  }
  void end() {
    seen_->stop = true;
    EXPECT_TRUE(all_end_well(children_));
    const auto& numbers = seen_->numbers;
    EXPECT_EQ(numbers[0] + numbers[1] + numbers[2], added()) << "some were added at a time";
  }

 private:
  int add(const std::array<std::string, kLocks>& paths, size_t self) {
    for (size_t n = self; !seen_->stop; ++n) {
      const int fd = open(paths.at(n % kLocks).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (fd < 0) return errno;
      if (const int wrong = write_command(fd, "EX timeout=60s"); wrong != 0) {
        close(fd);
        if (wrong == excused_) continue;
        return wrong;
      }
      volatile int& number = seen_->numbers.at(n % kLocks);
      const int value = number;
      sched_yield();  // Whoever else is let in now reads the same.
      number = value + 1;
      close(fd);
      ++seen_->added.at(self);
    }
    return 0;
  }
  struct Seen {
    std::atomic<bool> stop{false};
    std::array<int, kLocks> numbers{};
    std::array<std::atomic<int>, kAdders> added{};
  };
  const int excused_;
  const Common<Seen> seen_;
  std::vector<std::unique_ptr<Child>> children_;
};

/// Processes of a node that take the adders' locks in all modes, until the node is gone.
class Load {
 public:
  explicit Load(const std::array<std::string, kLocks>& paths) {
    for (unsigned i = 0; i < 2; ++i) {
      children_.push_back(std::make_unique<Child>([this, paths, i] {
        Worker worker(seen_->holders, paths, i);
        for (int wrong = 0; wrong == 0 || wrong == EHOSTUNREACH; wrong = worker.once()) {
          seen_->granted.at(i) = worker.granted();
        }
        return 0;
      }));
    }
  }
  bool at_work() const {
    return eventually([&] { return seen_->granted[0] >= 5 && seen_->granted[1] >= 5; }, 30);
  }
  void ends() { EXPECT_TRUE(all_end_well(children_)); }

 private:
  struct Seen {
    std::array<Holders, kLocks> holders;  // Some die within: not looked at.
    std::array<std::atomic<int>, 2> granted{};
  };
  const Common<Seen> seen_;
  std::vector<std::unique_ptr<Child>> children_;
};

TEST_P(SharedStorms, NothingIsLostWhenADaemonIsKilledAgainAndAgain) {
  if (!world().separate_nodes()) GTEST_SKIP() << kOneNode;
  constexpr int kKills = 30;
  Adders adders({storm_lock(1, 0), storm_lock(1, 1), storm_lock(1, 2)});
  for (int i = 0; i < kKills; ++i) {
    Load load({storm_lock(0, 0), storm_lock(0, 1), storm_lock(0, 2)});
    ASSERT_TRUE(load.at_work()) << "node 0 hangs, at kill " << i;
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs before kill " << i;
    kill_node(0);
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs after kill " << i;
    load.ends();
    restart_node(0);
  }
  adders.end();
  for (size_t i = 0; i < kLocks; ++i) {
    EXPECT_EQ(ask(storm_lock(0, i), "EX timeout=10s"), 0) << "nothing is left";
  }
}

TEST_P(SharedStorms, NothingIsLostWhenADaemonIsStoppedAgainAndAgain) {
  if (!world().separate_nodes()) GTEST_SKIP() << kOneNode;
  constexpr int kStops = 40;
  // Whoever needs the one that is stopped is told so in the end.
  Adders adders({storm_lock(1, 0), storm_lock(1, 1), storm_lock(1, 2)}, EHOSTUNREACH);
  auto load =
      std::make_unique<Load>(std::array{storm_lock(0, 0), storm_lock(0, 1), storm_lock(0, 2)});
  ASSERT_TRUE(load->at_work());
  for (int i = 0; i < kStops; ++i) {
    {
      const Stopped stopped(node(0).daemon());
      // Whatever it was within: node 1 answers, if only that it cannot tell.
      const auto asked = std::chrono::steady_clock::now();
      slurp(lock(1, "storm0"));
      const int result = write_command(open_lock(1, "free" + std::to_string(i)), "EX try");
      EXPECT_TRUE(result == 0 || result == EHOSTUNREACH) << result;
      EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(10));
    }
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs after stop " << i;
  }
  kill_node(0);
  load->ends();
  adders.end();
}

}  // namespace
}  // namespace lockfs::test
