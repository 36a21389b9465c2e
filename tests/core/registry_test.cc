// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockfs {
namespace {

using testing::HasSubstr;

TEST(Registry, MemoryMakesABackendOfOneNode) {
  const auto made = make_backend("memory:");
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ((*made)->traits().name, "memory");
  EXPECT_FALSE((*made)->traits().other_nodes);
}

TEST(Registry, EachCallMakesABackendOfItsOwn) {
  EXPECT_NE(make_backend("memory:")->get(), make_backend("memory:")->get());
}

TEST(Registry, MemoryTakesNothingBehindTheColon) {
  const auto made = make_backend("memory:x");
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error(), HasSubstr("'x'"));
}

TEST(Registry, AnUnknownSchemeIsNamedWithThoseKnown) {
  const auto made = make_backend("nonesuch://host/1");
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error(), HasSubstr("'nonesuch://host/1'"));
  EXPECT_THAT(made.error(), HasSubstr("memory:"));
}

TEST(Registry, WithoutAColonItIsNoUrl) {
  for (const char* url : {"", "memory", "/srv/locks", "Memory :"}) {
    EXPECT_FALSE(make_backend(url).has_value()) << url;
  }
}

}  // namespace
}  // namespace lockfs
