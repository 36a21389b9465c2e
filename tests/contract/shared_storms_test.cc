// SPDX-License-Identifier: MIT
// Both nodes under heavy load: random modes, and daemons that are killed and stopped in the midst.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
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
  std::array<std::string, kLocks> paths(size_t i) {
    return {lock(i, "storm0"), lock(i, "storm1"), lock(i, "storm2")};
  }
};
INSTANTIATE_TEST_SUITE_P(Worlds, SharedStorms, testing::ValuesIn(world_names()),
                         [](const auto& world) { return world.param; });

/// Who holds what of one lock at this moment. Who is granted a mode says so, and takes it back
/// before it gives the mode up: those who are noted hold.
class Holders {
 public:
  void note(size_t node, Mode mode) {
    ++count(node, mode);
    for (const Mode other : kModes) {
      const int there = count(0, other) + count(1, other) - (other == mode ? 1 : 0);
      if (there > 0 && !compatible(mode, other) && !excused_) ++wrong_;
    }
  }
  void forget(size_t node, Mode mode) { --count(node, mode); }
  /// Of a holder of PW or EX: it is alone in that.
  void note_token(uint64_t token) {
    if (token <= last_token_.exchange(token) && !excused_) ++stale_;
  }
  /// From now on until clear(), what is noted proves nothing: a daemon is killed, and its clients
  /// do not know yet.
  void excuse() { excused_ = true; }
  /// Nobody of that node holds.
  void clear(size_t node) {
    for (const Mode mode : kModes) count(node, mode) = 0;
    excused_ = false;
  }
  int wrong() const { return wrong_; }
  int stale() const { return stale_; }

 private:
  std::atomic<int>& count(size_t node, Mode mode) {
    return counts_.at(node).at(static_cast<size_t>(mode));
  }
  std::array<std::array<std::atomic<int>, kModeCount>, 2> counts_{};
  std::atomic<uint64_t> last_token_{0};
  std::atomic<bool> excused_{false};
  std::atomic<int> wrong_{0};
  std::atomic<int> stale_{0};
};
using AllHolders = std::array<Holders, kLocks>;
using Paths = std::array<std::string, kLocks>;

void expect_all_well(const AllHolders& all) {
  for (const Holders& lock : all) {
    EXPECT_EQ(lock.wrong(), 0) << "grants beside others that they exclude";
    EXPECT_EQ(lock.stale(), 0) << "tokens that did not grow";
  }
}

/// Takes a lock in a random mode, converts it now and then, and gives it up. What ends it: an
/// errno that nobody expects.
class Worker {
 public:
  Worker(AllHolders& holders, size_t node, Paths paths, unsigned seed)
      : holders_(holders), node_(node), paths_(std::move(paths)), random_(seed) {}

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
    holders.note(node_, mode);
    if (is_exclusive(mode)) holders.note_token(token_of(fd));
    if (below(2) == 0) result = convert(fd, holders, mode);
    if (below(3) == 0) sched_yield();
    holders.forget(node_, mode);
    return expected(result) ? 0 : result;
  }

  int convert(int fd, Holders& holders, Mode& mode) {
    const Mode before = mode;
    const Mode to = kModes.at(below(kModes.size()));
    const bool grows = covers(to, before);
    if (!grows) holders.forget(node_, before);  // It may be weaker, or other, before we are told.
    const int result = ask_for(fd, to);
    if (result == 0) {
      if (grows) holders.forget(node_, before);
      mode = to;
    }
    if (!grows || result == 0) holders.note(node_, mode);
    if (result == 0 && is_exclusive(to) && !is_exclusive(before)) {
      holders.note_token(token_of(fd));
    }
    return result;
  }

  AllHolders& holders_;
  const size_t node_;
  const Paths paths_;
  std::mt19937 random_;
  int granted_ = 0;
};

TEST_P(SharedStorms, RandomModesAreHeldAsTheDlmAllows) {
  constexpr int kTimes = 400;
  const Common<AllHolders> holders;
  std::vector<std::unique_ptr<Child>> children;
  for (unsigned i = 0; i < 6; ++i) {
    children.push_back(std::make_unique<Child>([&, i] {
      Worker worker(*holders, i % 2, paths(i % 2), i);
      int wrong = 0;
      for (int n = 0; n < kTimes && wrong == 0; ++n) wrong = worker.once();
      if (wrong == 0 && worker.granted() < kTimes / 10) wrong = ENODATA;  // It proves too little.
      return wrong;
    }));
  }
  EXPECT_TRUE(all_end_well(children));
  expect_all_well(*holders);
  for (size_t i = 0; i < kLocks; ++i) {
    EXPECT_EQ(ask(paths(i % 2).at(i), "EX timeout=10s"), 0) << "nothing is left";
  }
}

/// Processes of node 1 that add to numbers, each protected by a lock, while node 0 has load, too.
/// An errno ends them, except `excused`: then they try again.
class Adders {
 public:
  static constexpr size_t kAdders = 2;

  Adders(AllHolders& holders, const Paths& paths, int excused = 0)
      : holders_(holders), excused_(excused) {
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
  int add(const Paths& paths, size_t self) {
    for (size_t n = self; !seen_->stop; ++n) {
      const int fd = open(paths.at(n % kLocks).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      const int wrong = fd < 0 ? errno : write_command(fd, "EX timeout=60s");
      if (wrong == 0) add_one(fd, holders_.at(n % kLocks), seen_->numbers.at(n % kLocks));
      if (wrong == 0) ++seen_->added.at(self);
      if (fd >= 0) close(fd);
      if (wrong != 0 && wrong != excused_) return wrong;
    }
    return 0;
  }
  static void add_one(int fd, Holders& holders, volatile int& number) {
    holders.note(1, Mode::kEX);
    holders.note_token(token_of(fd));
    const int value = number;
    sched_yield();  // Whoever else is let in now reads the same.
    number = value + 1;
    holders.forget(1, Mode::kEX);
  }
  struct Seen {
    std::atomic<bool> stop{false};
    std::array<int, kLocks> numbers{};
    std::array<std::atomic<int>, kAdders> added{};
  };
  AllHolders& holders_;
  const int excused_;
  const Common<Seen> seen_;
  std::vector<std::unique_ptr<Child>> children_;
};

/// Processes of node 0 that take the adders' locks in all modes, until its daemon is gone.
class Load {
 public:
  Load(AllHolders& holders, const Paths& paths) : holders_(holders) {
    for (unsigned i = 0; i < 2; ++i) {
      children_.push_back(std::make_unique<Child>([this, paths, i] {
        Worker worker(holders_, 0, paths, i);
        for (int wrong = 0; wrong == 0 || wrong == EHOSTUNREACH; wrong = worker.once()) {
          granted_->at(i) = worker.granted();
        }
        return 0;
      }));
    }
  }
  bool at_work() const {
    return eventually([&] { return (*granted_)[0] >= 5 && (*granted_)[1] >= 5; }, 30);
  }
  /// Kills the daemon, and waits for the end of its clients.
  void end(pid_t daemon) {
    for (Holders& lock : holders_) lock.excuse();
    kill(daemon, SIGKILL);
    EXPECT_TRUE(all_end_well(children_));
    for (Holders& lock : holders_) lock.clear(0);
  }

 private:
  AllHolders& holders_;
  const Common<std::array<std::atomic<int>, 2>> granted_;
  std::vector<std::unique_ptr<Child>> children_;
};

TEST_P(SharedStorms, NothingIsLostWhenADaemonIsKilledAgainAndAgain) {
  if (!world().separate_nodes()) GTEST_SKIP() << kOneNode;
  const int kills = world().takeover() > 1 ? 6 : 30;
  const Common<AllHolders> holders;
  Adders adders(*holders, paths(1));
  for (int i = 0; i < kills; ++i) {
    Load load(*holders, paths(0));
    ASSERT_TRUE(load.at_work()) << "node 0 hangs, at kill " << i;
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs before kill " << i;
    load.end(node(0).daemon());
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs after kill " << i;
    restart_node(0);
  }
  adders.end();
  expect_all_well(*holders);
  for (size_t i = 0; i < kLocks; ++i) {
    EXPECT_EQ(ask(paths(0).at(i), "EX timeout=10s"), 0) << "nothing is left";
  }
}

TEST_P(SharedStorms, NothingIsLostWhenADaemonIsStoppedAgainAndAgain) {
  if (!world().separate_nodes()) GTEST_SKIP() << kOneNode;
  constexpr int kStops = 40;
  const Common<AllHolders> holders;
  // Whoever needs the one that is stopped is told so in the end.
  Adders adders(*holders, paths(1), EHOSTUNREACH);
  Load load(*holders, paths(0));
  ASSERT_TRUE(load.at_work());
  for (int i = 0; i < kStops; ++i) {
    {
      const Stopped stopped(node(0).daemon());
      // Whatever it was within: node 1 answers, if only that it cannot tell.
      const auto asked = std::chrono::steady_clock::now();
      slurp(lock(1, "storm0"));
      const int result = ask(lock(1, "free" + std::to_string(i)), "EX try");
      EXPECT_TRUE(result == 0 || result == EHOSTUNREACH) << result;
      EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::seconds(10));
    }
    ASSERT_TRUE(adders.go_on(10)) << "node 1 hangs after stop " << i;
  }
  load.end(node(0).daemon());
  adders.end();
  expect_all_well(*holders);
}

}  // namespace
}  // namespace lockfs::test
