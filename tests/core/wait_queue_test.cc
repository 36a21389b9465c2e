// SPDX-License-Identifier: MIT
#include "core/wait_queue.h"

#include <gmock/gmock.h>

#include <map>
#include <random>
#include <vector>

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int> all(const WaitQueue<int>& queue) {
  std::vector<int> out;
  queue.any([&](int value) {
    out.push_back(value);
    return false;
  });
  return out;
}

/// The values, which are their places, from the nearest before `place` to the first.
std::vector<int> before(const WaitQueue<int>& queue, uint64_t place) {
  std::vector<int> out;
  for (const int* at = queue.before(place); at != nullptr;
       at = queue.before(static_cast<uint64_t>(*at))) {
    out.push_back(*at);
  }
  return out;
}

class WaitQueueTest : public testing::Test {
 protected:
  std::vector<int> values{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  WaitQueue<int> queue;
  void join(uint64_t place) { queue.insert(place, &values[place]); }
};

TEST_F(WaitQueueTest, IsEmptyAtFirst) {
  EXPECT_TRUE(queue.empty());
  EXPECT_THAT(all(queue), IsEmpty());
  EXPECT_THAT(before(queue, 5), IsEmpty());
}

TEST_F(WaitQueueTest, TakesItsFormerPlaceAgain) {
  for (const uint64_t place : {1, 2, 3, 5}) join(place);
  queue.erase(2);
  EXPECT_THAT(all(queue), ElementsAre(1, 3, 5));
  join(2);
  EXPECT_THAT(all(queue), ElementsAre(1, 2, 3, 5));
  join(4);
  EXPECT_THAT(all(queue), ElementsAre(1, 2, 3, 4, 5)) << "a place it never had";
  queue.erase(1);
  queue.erase(2);
  join(1);
  EXPECT_EQ(*queue.front(), 1) << "before all that are left";
}

TEST_F(WaitQueueTest, LeadsFromAPlaceToThoseBeforeIt) {
  for (const uint64_t place : {1, 2, 3, 5}) join(place);
  queue.erase(2);
  EXPECT_THAT(before(queue, 5), ElementsAre(3, 1));
  EXPECT_THAT(before(queue, 4), ElementsAre(3, 1));
  EXPECT_THAT(before(queue, 1), IsEmpty());
  EXPECT_EQ(*queue.before(9), 5) << "a place beyond all";
}

TEST_F(WaitQueueTest, IsAMapUnderRandomUse) {
  std::mt19937_64 random(20261126);  // NOLINT: the same numbers each time.
  std::map<uint64_t, int*> model;
  std::vector<uint64_t> left;
  std::vector<int> many(4000);
  uint64_t next = 0;
  for (int step = 0; step < 100000; ++step) {
    const auto dice = random() % 10;
    if (dice < 4 && next < many.size()) {
      many[next] = static_cast<int>(next);
      queue.insert(next, &many[next]);
      model[next] = &many[next];
      ++next;
    } else if (dice < 8 && !model.empty()) {
      auto it = dice < 6 ? model.begin() : std::next(model.begin(), random() % model.size());
      queue.erase(it->first);
      left.push_back(it->first);
      model.erase(it);
    } else if (dice == 8 && !left.empty()) {
      const uint64_t place = left[random() % left.size()];
      std::erase(left, place);
      queue.insert(place, &many[place]);
      model[place] = &many[place];
    }
    ASSERT_EQ(queue.empty(), model.empty());
    if (!model.empty()) {
      ASSERT_EQ(queue.front(), model.begin()->second);
    }
    if (step % 50 != 0) continue;
    std::vector<int> expected;
    for (const auto& [place, item] : model) expected.push_back(*item);
    ASSERT_EQ(all(queue), expected);
    const uint64_t place = random() % many.size();
    std::vector<int> nearest;
    for (auto it = model.lower_bound(place); it != model.begin();)
      nearest.push_back(*(--it)->second);
    ASSERT_EQ(before(queue, place), nearest);
  }
}

}  // namespace
}  // namespace lockfs
