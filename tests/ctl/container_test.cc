// SPDX-License-Identifier: MIT
// lockctl in a container that has nothing but a bind mount of the mount.
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class LockctlInAContainer : public LockctlTest {
 protected:
  void SetUp() override {
    const Ended tried = contained("true");
    if (tried.status == 0) return;
    const char* required = std::getenv("LOCKFS_TEST_REQUIRE");
    const bool must =
        required != nullptr && std::string_view(required).find("bwrap") != std::string_view::npos;
    ASSERT_FALSE(must) << tried.err;
    GTEST_SKIP() << "bwrap does not run here: " << tried.err;
  }
  /// A shell's words in a container: its own mounts and processes, the mount at /locks.
  Words container(const std::string& script) const {
    return {"bwrap",     "--ro-bind",   "/usr",      "/usr",          "--symlink",
            "usr/bin",   "/bin",        "--symlink", "usr/lib",       "/lib",
            "--symlink", "usr/lib64",   "/lib64",    "--proc",        "/proc",
            "--dev",     "/dev",        "--ro-bind", LOCKCTL,         "/lockctl",
            "--bind",    mount_.path(), "/locks",    "--unshare-pid", "--die-with-parent",
            "sh",        "-c",          script};
  }
  Ended contained(const std::string& script) const { return run(container(script)); }
};

TEST_F(LockctlInAContainer, FindsTheMountAndShowsWhatTheHostHolds) {
  const Fd a = hold("a", "EX");
  const Ended list = contained("/lockctl list");
  EXPECT_EQ(list.status, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("default/a"));
  EXPECT_THAT(contained("/lockctl show /locks/default/a").out, HasSubstr("(ctl_tests)"));
  EXPECT_EQ(contained("/lockctl run -n a -- true").status, 1);
  EXPECT_EQ(contained("/lockctl waits").out, "nobody waits\n");
}

TEST_F(LockctlInAContainer, NamesWhoHasItOpenThereByTheNumbersOfThere) {
  const Ended ended = contained(
      "/lockctl run a -- sh -c 'echo $$ >/tmp/pid; /lockctl show --json a' | tee /tmp/json; "
      "/lockctl run b -- sh -c 'echo $PPID $$; /lockctl show b'");
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("(lockctl) took it"));
  EXPECT_THAT(ended.out, HasSubstr("(sh) inherited it from pid"));
}

TEST_F(LockctlInAContainer, TheHostSeesTheDescriptorsOfAContainer) {
  Program inside(container("exec /lockctl run a -- sleep 1000"));
  ASSERT_TRUE(eventually_held("a"));
  ASSERT_TRUE(eventually([&] {
    const json all = json::parse(lockctl({"show", "--json", "a"}).out).at("descriptors");
    return all.size() == 2 && all.at(1).at("comm") == "sleep";
  }));
  const std::string out = lockctl({"show", "a"}).out;
  EXPECT_THAT(out, HasSubstr("(lockctl) took it"));
  EXPECT_THAT(out, HasSubstr("(sleep) inherited it from pid"));
  EXPECT_THAT(out, HasSubstr("in container pid:["));
}

}  // namespace
}  // namespace lockfs::test
