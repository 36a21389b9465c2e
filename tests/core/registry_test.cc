// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockfs {
namespace {

using testing::HasSubstr;

TEST(Registry, MemoryMakesABackendOfOneNode) {
  EventLoop loop;
  const auto made = make_backend("memory:", loop);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ((*made)->traits().name, "memory");
  EXPECT_FALSE((*made)->traits().other_nodes);
}

TEST(Registry, EachCallMakesABackendOfItsOwn) {
  EventLoop loop;
  EXPECT_NE(make_backend("memory:", loop)->get(), make_backend("memory:", loop)->get());
}

TEST(Registry, MemoryTakesNothingBehindTheColon) {
  EventLoop loop;
  const auto made = make_backend("memory:x", loop);
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error(), HasSubstr("'x'"));
}

TEST(Registry, AnUnknownSchemeIsNamedWithThoseKnown) {
  EventLoop loop;
  const auto made = make_backend("nonesuch://host/1", loop);
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error(), HasSubstr("'nonesuch://host/1'"));
  EXPECT_THAT(made.error(), HasSubstr("memory:"));
}

TEST(Registry, WithoutAColonItIsNoUrl) {
  EventLoop loop;
  for (const char* url : {"", "memory", "/srv/locks", "Memory :"}) {
    EXPECT_FALSE(make_backend(url, loop).has_value()) << url;
  }
}

}  // namespace
}  // namespace lockfs
