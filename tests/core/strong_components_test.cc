// SPDX-License-Identifier: MIT
#include "core/strong_components.h"

#include <gmock/gmock.h>

#include <random>

namespace lockfs {
namespace {

TEST(StrongComponents, OfNothingAreNone) { EXPECT_TRUE(strong_components({}).empty()); }

TEST(StrongComponents, AChainIsOneEach) {
  const auto component = strong_components({{1}, {2}, {}});
  EXPECT_NE(component[0], component[1]);
  EXPECT_NE(component[1], component[2]);
  EXPECT_NE(component[0], component[2]);
}

TEST(StrongComponents, ARingIsOneAndWhatLeadsToItOrFromItIsNoPart) {
  const auto component = strong_components({{1}, {2}, {3}, {1, 4}, {}});
  EXPECT_EQ(component[1], component[2]);
  EXPECT_EQ(component[2], component[3]);
  EXPECT_NE(component[0], component[1]);
  EXPECT_NE(component[4], component[1]);
}

TEST(StrongComponents, ALongRingNeedsNoStack) {
  constexpr size_t kLong = 1000000;
  Edges edges(kLong);
  for (size_t i = 0; i < kLong; ++i) edges[i].push_back((i + 1) % kLong);
  EXPECT_THAT(strong_components(edges), testing::Each(0U));
}

TEST(StrongComponents, AreWhatReachesEachOther) {
  std::mt19937_64 random(20261128);  // NOLINT: the same numbers each time.
  for (int round = 0; round < 300; ++round) {
    const size_t count = 1 + random() % 12;
    Edges edges(count);
    std::vector<std::vector<bool>> reaches(count, std::vector<bool>(count, false));
    for (size_t i = 0; i < random() % (2 * count); ++i) {
      const size_t from = random() % count;
      const size_t to = random() % count;
      edges[from].push_back(to);
      reaches[from][to] = true;
    }
    for (size_t i = 0; i < count; ++i) reaches[i][i] = true;
    for (size_t over = 0; over < count; ++over) {
      for (size_t a = 0; a < count; ++a) {
        for (size_t b = 0; b < count; ++b) {
          if (reaches[a][over] && reaches[over][b]) reaches[a][b] = true;
        }
      }
    }
    const auto component = strong_components(edges);
    for (size_t a = 0; a < count; ++a) {
      for (size_t b = 0; b < count; ++b) {
        ASSERT_EQ(component[a] == component[b], reaches[a][b] && reaches[b][a]) << round;
      }
    }
  }
}

}  // namespace
}  // namespace lockfs
