// SPDX-License-Identifier: MIT
#include "core/slot_map.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace lockfs {
namespace {

enum class Key : uint64_t { kNone = 0 };
using Map = SlotMap<Key, std::string>;

TEST(SlotMap, FindsWhatWasPutInUnderItsId) {
  Map map;
  const auto [a, first] = map.emplace("first");
  const auto [b, second] = map.emplace("second");
  EXPECT_NE(a, b);
  ASSERT_NE(map.find(a), nullptr);
  EXPECT_EQ(*map.find(a), "first");
  EXPECT_EQ(map.find(b), &second);
  EXPECT_EQ(map.size(), 2U);
}

TEST(SlotMap, FindsNothingUnderZeroOrAnIdNeverGiven) {
  Map map;
  EXPECT_EQ(map.find(Key::kNone), nullptr);
  EXPECT_GE(static_cast<uint64_t>(map.emplace("x").first), 1ULL << 32);
  EXPECT_EQ(map.find(Key::kNone), nullptr);
  EXPECT_EQ(map.find(static_cast<Key>(~0ULL)), nullptr);
  EXPECT_EQ(map.find(static_cast<Key>(1ULL << 32 | 7)), nullptr);
}

TEST(SlotMap, AStaleIdFindsNothingWhenItsPlaceIsFilledAgain) {
  Map map;
  const Key old = map.emplace("old").first;
  map.erase(old);
  const Key fresh = map.emplace("fresh").first;
  EXPECT_EQ(static_cast<uint32_t>(old), static_cast<uint32_t>(fresh)) << "the place is used again";
  EXPECT_EQ(map.find(old), nullptr);
  map.erase(old);
  ASSERT_NE(map.find(fresh), nullptr);
  EXPECT_EQ(*map.find(fresh), "fresh");
  EXPECT_EQ(map.size(), 1U);
}

TEST(SlotMap, NeverGivesAnIdTwice) {
  Map map;
  std::set<Key> given;
  std::vector<Key> live;
  for (int round = 0; round < 1000; ++round) {
    const Key id = map.emplace("x").first;
    EXPECT_NE(id, Key::kNone);
    EXPECT_TRUE(given.insert(id).second);
    live.push_back(id);
    if (round % 3 != 0) {
      map.erase(live.front());
      live.erase(live.begin());
    }
  }
  EXPECT_EQ(map.size(), live.size());
}

TEST(SlotMap, ReferencesStayWhileOthersComeAndGo) {
  Map map;
  auto [id, kept] = map.emplace("kept");
  std::vector<Key> others;
  for (int i = 0; i < 10000; ++i) others.push_back(map.emplace("other").first);
  for (const Key other : others) map.erase(other);
  EXPECT_EQ(map.find(id), &kept);
  EXPECT_EQ(kept, "kept");
}

TEST(SlotMap, EraseEndsTheValueAtOnce) {
  SlotMap<Key, std::shared_ptr<int>> map;
  const auto value = std::make_shared<int>(1);
  const Key id = map.emplace(value).first;
  EXPECT_EQ(value.use_count(), 2);
  map.erase(id);
  EXPECT_EQ(value.use_count(), 1);
}

TEST(SlotMap, ForEachVisitsExactlyTheLiving) {
  Map map;
  std::set<Key> living;
  for (int i = 0; i < 10; ++i) living.insert(map.emplace("x").first);
  const Key gone = *living.begin();
  map.erase(gone);
  living.erase(gone);
  std::set<Key> seen;
  map.for_each([&](Key id, std::string&) { EXPECT_TRUE(seen.insert(id).second); });
  EXPECT_EQ(seen, living);
}

}  // namespace
}  // namespace lockfs
