// SPDX-License-Identifier: MIT
// Eight processes fight for one name with open(O_EXCL): two never have it, and nobody is refused
// while nobody can have it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <iostream>
#include <memory>

#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

// One open(O_EXCL): before the call and after it; if it succeeded, before close(2) and after it.
struct Attempt {
  int64_t asked = 0;
  int64_t answered = 0;
  int64_t closing = 0;  ///< 0: it was refused.
  int64_t closed = 0;
};

// Surely held from answered to closing; perhaps held from asked to closed.
std::vector<std::string> broken_rules(const std::vector<Attempt>& attempts) {
  std::vector<std::string> broken;
  std::vector<Attempt> holds;
  std::copy_if(attempts.begin(), attempts.end(), std::back_inserter(holds),
               [](const Attempt& a) { return a.closing != 0; });
  std::sort(holds.begin(), holds.end(),
            [](const Attempt& a, const Attempt& b) { return a.answered < b.answered; });
  for (size_t i = 1; i < holds.size(); ++i) {
    if (holds[i].answered < holds[i - 1].closing) {
      broken.push_back("two hold it at " + std::to_string(holds[i].answered));
    }
  }
  std::sort(holds.begin(), holds.end(),
            [](const Attempt& a, const Attempt& b) { return a.asked < b.asked; });
  std::vector<int64_t> latest;  // The latest `closed` among the holds so far.
  for (const Attempt& hold : holds) {
    latest.push_back(latest.empty() ? hold.closed : std::max(latest.back(), hold.closed));
  }
  for (const Attempt& attempt : attempts) {
    if (attempt.closing != 0) continue;
    const auto after =
        std::upper_bound(holds.begin(), holds.end(), attempt.answered,
                         [](int64_t when, const Attempt& hold) { return when < hold.asked; });
    const auto count = static_cast<size_t>(after - holds.begin());
    if (count == 0 || latest[count - 1] < attempt.asked) {
      broken.push_back("refused while free at " + std::to_string(attempt.asked));
    }
  }
  return broken;
}

constexpr size_t kFighters = 8;
constexpr size_t kMost = 100000;

struct Fighter {
  std::array<Attempt, kMost> attempts;
  std::atomic<size_t> count;
  std::atomic<int> strange;  ///< An errno other than EEXIST.
};
struct Ring {
  std::array<Fighter, kFighters> fighters;
  std::atomic<bool> end;
};

int fight(const std::string& path, Ring& ring, Fighter& fighter) {
  while (!ring.end && fighter.count < kMost) {
    Attempt attempt;
    attempt.asked = monotonic();
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    attempt.answered = monotonic();
    if (fd < 0 && errno != EEXIST) fighter.strange = errno;
    if (fd >= 0) {
      if (fighter.count % 3 == 0) usleep(50);
      attempt.closing = monotonic();
      close(fd);
      attempt.closed = monotonic();
    }
    fighter.attempts.at(fighter.count) = attempt;
    ++fighter.count;
  }
  return 0;
}

using ExclusiveFight = MountTest;

TEST_F(ExclusiveFight, EightGetEexistOnlyWhileTheNameIsHeld) {
  const Shared<Ring> ring;
  const std::string path = mount_.lock("prize");
  std::vector<std::unique_ptr<Child>> children;
  for (Fighter& fighter : ring->fighters) {
    children.push_back(std::make_unique<Child>([&] { return fight(path, *ring, fighter); }));
  }
  const int64_t end = monotonic() + 3000000000;
  const auto all_full = [&] {
    return std::all_of(ring->fighters.begin(), ring->fighters.end(),
                       [](const Fighter& f) { return f.count == kMost; });
  };
  EXPECT_TRUE(eventually([&] { return monotonic() > end || all_full(); }));
  ring->end = true;
  std::vector<Attempt> all;
  for (size_t i = 0; i < kFighters; ++i) {
    EXPECT_EQ(children[i]->wait(), 0);
    const Fighter& fighter = ring->fighters.at(i);
    EXPECT_EQ(fighter.strange.load(), 0) << "fighter " << i;
    all.insert(all.end(), fighter.attempts.begin(), fighter.attempts.begin() + fighter.count);
  }
  const auto wins = std::count_if(all.begin(), all.end(),
                                  [](const Attempt& attempt) { return attempt.closing != 0; });
  std::cout << all.size() << " attempts, " << wins << " held it\n";
  EXPECT_THAT(broken_rules(all), ::testing::IsEmpty());
  EXPECT_GT(wins, 1000);
  EXPECT_GT(all.size() - static_cast<size_t>(wins), 100U) << "nobody was ever refused: no fight";
}

TEST(ExclusiveFightChecker, FindsTwoThatHoldItAtOnce) {
  EXPECT_THAT(broken_rules({{1, 2, 10, 11}, {3, 9, 12, 13}}), ::testing::SizeIs(1));
  EXPECT_THAT(broken_rules({{1, 2, 10, 11}, {3, 11, 12, 13}}), ::testing::IsEmpty());
}

TEST(ExclusiveFightChecker, FindsARefusalWhileItWasFree) {
  EXPECT_THAT(broken_rules({{1, 2, 3, 4}, {5, 6, 0, 0}, {7, 8, 9, 10}}), ::testing::SizeIs(1));
  EXPECT_THAT(broken_rules({{5, 6, 0, 0}}), ::testing::SizeIs(1));
  EXPECT_THAT(broken_rules({{1, 2, 5, 6}, {4, 9, 0, 0}}), ::testing::IsEmpty());
  EXPECT_THAT(broken_rules({{1, 2, 20, 21}, {3, 4, 0, 0}, {22, 23, 24, 25}}), ::testing::IsEmpty());
}

}  // namespace
}  // namespace lockfs::test
