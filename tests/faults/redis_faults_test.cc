// SPDX-License-Identifier: MIT
// What goes wrong between a mount and its Redis, step by step: which message is lost, what the
// server has kept, what it refuses. Each was a lock that hung, or that was had twice.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"
#include "tests/support/redis_server.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;

class RedisFaults : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!RedisServer::is_here()) GTEST_SKIP() << "no redis-server here";
  }
  static std::string at(int port, const std::string& lease = "10s") {
    return "redis://127.0.0.1:" + std::to_string(port) + "?lease=" + lease;
  }
  // What the server has of a lock: its nodes, and what they hold and want.
  static std::string record(const RedisServer& server, const std::string& name) {
    return server.command({"HGETALL", "lockfs:lock:default/" + name});
  }
};

// The server has granted it when the cancel comes; the message that says so is lost.
TEST_F(RedisFaults, ACancelThatCameTooLateLeavesALockThatCanBeHad) {
  const RedisServer server;
  server.is_known();
  Proxy network(server.port());
  const Mount far({}, at(network.port()));
  const Mount near({}, at(server.port()));
  const int held = open_lock(near, "late");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  Child waits([&] { return ask(far.lock("late"), "EX"); });
  const auto waiters = [&](const Mount& mount) {
    return picture_value(slurp(mount.lock("late")), "waiters_total");
  };
  ASSERT_TRUE(eventually([&] { return waiters(near) == "1"; }));
  network.hold_messages(true);
  ASSERT_EQ(write_command(held, "UN"), 0);
  ASSERT_TRUE(
      eventually([&] { return record(server, "late").find("\n5 -1 ") != std::string::npos; }));
  waits.signal(SIGKILL);
  waits.wait();
  ASSERT_TRUE(eventually([&] { return waiters(far) != "1"; }));
  ASSERT_EQ(exclusive(far, "other"), 0) << "what was asked before is answered";
  network.cut();
  network.hold_messages(false);
  ASSERT_TRUE(eventually([&] { return exclusive(far, "back") == 0; })) << far.log();
  const int fd = open_lock(far, "late");
  EXPECT_EQ(write_command(fd, "EX timeout=5s"), 0) << record(server, "late");
  EXPECT_EQ(write_command(fd, "UN"), 0);
  EXPECT_EQ(write_command(open_lock(near, "late"), "EX timeout=5s"), 0) << record(server, "late");
}

}  // namespace
}  // namespace lockfs::test
