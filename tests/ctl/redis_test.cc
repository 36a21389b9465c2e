// SPDX-License-Identifier: MIT
// lockctl over a server that lets wait for what nobody holds.
#include "tests/ctl/program.h"
#include "tests/support/redis_server.h"

namespace lockfs::test {
namespace {

class LockctlByRedis : public LockctlTest {};

TEST_F(LockctlByRedis, AWaitForWhatNobodyHoldsIsFoundByAnyName) {
  if (!RedisServer::is_here()) GTEST_SKIP() << "redis-server is not installed";
  const RedisServer server;  // A new one grants nothing until all who might hold are heard.
  const Mount mount({}, "redis+unix://" + server.socket() + "?lease=10m");
  Circumstances there = here();
  there.environment["LOCKFS_MOUNT"] = mount.path();
  for (const std::string name : {"good", "bad\xff\xc3"}) {
    const Program waiter(line({"run", name, "--", "true"}), there);
    const std::string pid = "pid " + std::to_string(waiter.pid()) + " (lockctl)";
    EXPECT_TRUE(eventually([&] {
      const std::string out = run(line({"show", name}), there).out;
      return out.find(pid) != std::string::npos &&
             out.find("Nobody holds it here") != std::string::npos;
    })) << run(line({"show", name}), there).out
        << mount.log();
  }
}

}  // namespace
}  // namespace lockfs::test
