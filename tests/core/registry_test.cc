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

TEST(Registry, DlmTakesAPrefixAndNoName) {
  for (const char* url : {"dlm:", "dlm:?prefix=", "dlm:?prefix=web_"}) {
    EXPECT_FALSE(check_backend_url(url)) << url;
  }
  for (const char* url :
       {"dlm:name", "dlm:?prefx=a", "dlm:?prefix=123456789012345678901234567890123"}) {
    const auto wrong = check_backend_url(url);
    ASSERT_TRUE(wrong) << url;
    EXPECT_THAT(*wrong, HasSubstr("dlm:")) << url;
  }
}

// What a module lacks of the program is found when it is loaded.
TEST(Registry, EachModuleThatWasBuiltIsLoaded) {
  for (const std::string url : {"dlm:", "redis://h", "rediss://h", "redis+unix:///s", "etcd://h",
                                "etcds://h", "ldlm://h", "ldlms://h", "elock://h"}) {
    const auto wrong = check_backend_url(url);
    EXPECT_TRUE(!wrong || wrong->find("comes without it") != std::string::npos) << *wrong;
  }
}

// The words of each lack are tested where there is a DLM: tests/dlm.
TEST(Registry, WithoutAClusterDlmSaysWhatIsMissing) {
  EventLoop loop;
  const auto made = make_backend("dlm:", loop);
  if (made) GTEST_SKIP() << "this machine is a node of a cluster";
  EXPECT_THAT(made.error(), HasSubstr("dlm: "));
}

TEST(Registry, WithoutAColonItIsNoUrl) {
  EventLoop loop;
  for (const char* url : {"", "memory", "/srv/locks", "Memory :"}) {
    EXPECT_FALSE(make_backend(url, loop).has_value()) << url;
  }
}

}  // namespace
}  // namespace lockfs
