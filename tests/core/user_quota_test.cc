// SPDX-License-Identifier: MIT
#include "core/user_quota.h"

#include <gtest/gtest.h>

namespace lockfs {
namespace {

TEST(UserQuota, GivesAUserSoManyAndNoMore) {
  UserQuota quota;
  quota.limits = {2, 1, 0};
  EXPECT_TRUE(quota.take(7, Quota::kOpens));
  EXPECT_TRUE(quota.take(7, Quota::kOpens));
  EXPECT_FALSE(quota.take(7, Quota::kOpens));
  EXPECT_TRUE(quota.take(7, Quota::kWaiters));
  EXPECT_FALSE(quota.take(7, Quota::kWaiters));
  EXPECT_FALSE(quota.take(7, Quota::kNames));
}

TEST(UserQuota, ARefusalTakesNothing) {
  UserQuota quota;
  quota.limits = {1, 1, 1};
  ASSERT_TRUE(quota.take(7, Quota::kOpens));
  ASSERT_FALSE(quota.take(7, Quota::kOpens));
  quota.give(7, Quota::kOpens);
  EXPECT_TRUE(quota.take(7, Quota::kOpens));
}

TEST(UserQuota, UsersDoNotShare) {
  UserQuota quota;
  quota.limits = {1, 1, 1};
  EXPECT_TRUE(quota.take(7, Quota::kOpens));
  EXPECT_TRUE(quota.take(8, Quota::kOpens));
  EXPECT_FALSE(quota.take(8, Quota::kOpens));
}

TEST(UserQuota, RootHasNoLimit) {
  UserQuota quota;
  quota.limits = {0, 0, 0};
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(quota.take(0, Quota::kNames));
  quota.give(0, Quota::kNames);
}

TEST(UserQuota, GivingBackAllForgetsTheUser) {
  UserQuota quota;
  quota.limits = {1, 1, 1};
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(quota.take(7, Quota::kNames));
    EXPECT_TRUE(quota.take(7, Quota::kWaiters));
    EXPECT_FALSE(quota.take(7, Quota::kNames));
    quota.give(7, Quota::kNames);
    quota.give(7, Quota::kWaiters);
  }
  quota.give(9, Quota::kNames);  // Of whom nothing is known.
  EXPECT_TRUE(quota.take(9, Quota::kNames));
  EXPECT_FALSE(quota.take(9, Quota::kNames));
}

}  // namespace
}  // namespace lockfs
