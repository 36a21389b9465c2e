// SPDX-License-Identifier: MIT
// What goes wrong between a mount and its Redis, step by step: which message is lost, what the
// server has kept, what it refuses. Each was a lock that hung, or that was had twice.
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

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
  // By what name the server knows a mount.
  static std::string node(const Mount& mount) {
    return picture_value(slurp(mount.path() + "/.lockfs/traits"), "default.status.node");
  }
  // How many it has had, by what INFO says.
  static int connections(const std::string& stats) {
    const std::string key = "total_connections_received:";
    return std::atoi(stats.c_str() + stats.find(key) + key.size());
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

// What it keeps is EX; while nobody hears of it, it takes PR from that.
TEST_F(RedisFaults, WhatIsMadeWeakerWhileTheServerIsAwayIsWeakerWhenItIsBack) {
  const RedisServer server;
  server.is_known();
  Proxy network(server.port());
  const Mount far({}, at(network.port()));
  const Mount near({}, at(server.port()));
  const int fd = open_lock(far, "kept");
  ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
  ASSERT_EQ(write_command(fd, "UN"), 0);
  network.cut(true);
  ASSERT_TRUE(eventually([&] { return exclusive(far, "away") == EHOSTUNREACH; }));
  ASSERT_EQ(write_command(fd, "PR try"), 0);
  network.cut(false);
  ASSERT_TRUE(eventually([&] { return exclusive(far, "back") == 0; })) << far.log();
  EXPECT_EQ(write_command(open_lock(near, "kept"), "PR try"), 0) << record(server, "kept");
  EXPECT_EQ(write_command(open_lock(near, "kept"), "EX try"), EAGAIN);
}

TEST_F(RedisFaults, AConversionThatEndedWhileTheServerWasAwayLeavesTheModeThatWas) {
  const RedisServer server;
  server.is_known();
  Proxy network(server.port());
  const Mount far({}, at(network.port()));
  const Mount near({}, at(server.port()));
  const int mine = open_lock(far, "both");
  const int other = open_lock(near, "both");
  ASSERT_EQ(write_command(mine, "PR timeout=5s"), 0);
  ASSERT_EQ(write_command(other, "PR timeout=5s"), 0);
  Child converts([&] { return write_command(mine, "EX timeout=1s"); });
  const auto has = [&](const std::string& words) {
    return record(server, "both").find(words) != std::string::npos;
  };
  ASSERT_TRUE(eventually([&] { return has("\n3 5 "); }));
  network.cut(true);
  ASSERT_EQ(write_command(other, "UN"), 0);
  ASSERT_TRUE(eventually([&] { return has("\n5 -1 "); })) << "it is granted, and nobody hears it";
  EXPECT_EQ(converts.wait(), ETIMEDOUT);
  network.cut(false);
  ASSERT_TRUE(eventually([&] { return exclusive(far, "back") == 0; })) << far.log();
  EXPECT_EQ(write_command(other, "PR try"), 0) << record(server, "both");
  EXPECT_EQ(own(mine, "this.mode"), "PR");
}

// Debian's Redis writes its data now and then only: what was released since is there again.
TEST_F(RedisFaults, AServerThatComesBackWithOldDataTakesNoLockFromAHolder) {
  RedisServer server;
  server.is_known();
  const Mount near({}, at(server.port(), "2s"));
  {
    const Mount gone({}, at(server.port(), "2s"));
    ASSERT_EQ(exclusive(gone, "old"), 0);
    ASSERT_EQ(server.command({"SAVE"}), "OK");
    close_all();
  }
  const int held = open_lock(near, "old");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  server.kill();
  server.start();
  ASSERT_THAT(record(server, "old"), testing::Not(HasSubstr(node(near)))) << "it is too new";
  ASSERT_TRUE(eventually([&] {
    EXPECT_NE(write_command(held, "renew"), ESTALE) << own(held, "this.error");
    return HasFailure() || exclusive(near, "new") == 0;
  }));
  EXPECT_THAT(record(server, "old"), HasSubstr(node(near)));
  const Mount later({}, at(server.port(), "2s"));
  EXPECT_EQ(exclusive(later, "old"), EEXIST);
  EXPECT_NE(write_command(held, "renew"), ESTALE) << own(held, "this.error");
}

// As after a fail-over that two mounts have not seen alike: the server knows of one holder only.
TEST_F(RedisFaults, WhoResumesTakesNothingFromWhoHasItInThisRunOfTheServer) {
  const RedisServer server;
  server.is_known();
  const Mount near({}, at(server.port(), "2s"));
  const Mount far({}, at(server.port(), "2s"));
  const int lost = open_lock(near, "twice");
  ASSERT_EQ(write_command(lost, "EX timeout=5s"), 0);
  server.command({"HDEL", "lockfs:lock:default/twice", node(near)});
  server.command({"DEL", "lockfs:mine:" + node(near)});
  server.command({"HDEL", "lockfs:nodes", node(near)});
  const int held = open_lock(far, "twice");
  ASSERT_EQ(write_command(held, "EX try"), 0);
  server.command({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_TRUE(eventually([&] { return write_command(lost, "renew") == ESTALE; }));
  EXPECT_TRUE(eventually([&] { return exclusive(near, "other") == 0; })) << near.log();
  EXPECT_NE(write_command(held, "renew"), ESTALE) << own(held, "this.error");
  EXPECT_THAT(record(server, "twice"), HasSubstr(node(far)));
}

// It is read in pieces; what changes between two of them is seen as well.
TEST_F(RedisFaults, AMountThatComesToManyLocksSeesThemAllAsTheyAreInTheEnd) {
  const RedisServer server;
  server.is_known();
  constexpr int kPins = 3000;
  std::vector<std::string> pins = {"HSET", "lockfs:pins:default"};
  for (int i = 0; i < kPins; ++i) {
    pins.push_back("pin" + std::to_string(i));
    pins.emplace_back("owner=0 bits=438 allocated=0");
  }
  server.command(pins);
  const Mount near({}, at(server.port()));
  std::vector<int> locks;
  for (int i = 0; i < 200; ++i) {
    locks.push_back(open_lock(near, "held" + std::to_string(i)));
    ASSERT_EQ(write_command(locks.back(), "EX timeout=5s"), 0);
  }
  Proxy network(server.port());
  network.slow(10);
  const Mount far({}, at(network.port()));
  Child changes([&] {
    for (int i = 0; i < 100; ++i) write_command(locks[static_cast<size_t>(i)], "UN");
    for (int i = 50; i < 100; ++i) write_command(locks[static_cast<size_t>(i)], "PR");
    return 0;
  });
  const auto modes = [](const Mount& mount) {
    std::map<std::string, std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(mount.path() + "/default")) {
      const std::string name = entry.path().filename();
      if (name != ".ctl") out[name] = picture_value(slurp(entry.path()), "mode");
    }
    return out;
  };
  EXPECT_EQ(changes.wait(), 0);
  const auto all = modes(near);
  EXPECT_EQ(all.size(), kPins + 150U);
  EXPECT_TRUE(eventually([&] { return modes(far) == all; })) << modes(far).size();
}

// Each connection meets the same error at once: it is told once, and not asked for without a pause.
TEST_F(RedisFaults, AnErrorThatAlwaysComesIsLoggedOnce) {
  const RedisServer server;
  server.is_known();
  server.command({"ACL", "SETUSER", "locks", "on", ">word", "allkeys", "&*", "+@all", "-hkeys"});
  const Mount mount({},
                    "redis://locks:word@127.0.0.1:" + std::to_string(server.port()) + "?lease=1s");
  ASSERT_TRUE(eventually([&] { return mount.log().find("warning: redis: ") != std::string::npos; }))
      << mount.log();
  const std::string before = server.command({"INFO", "stats"});
  std::this_thread::sleep_for(std::chrono::seconds(3));
  EXPECT_LT(connections(server.command({"INFO", "stats"})) - connections(before), 30);
  const std::string log = mount.log();
  EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 6) << log;
  server.command({"ACL", "SETUSER", "locks", "+hkeys"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "had") == 0; })) << mount.log();
  EXPECT_TRUE(eventually([&] { return mount.log().find("there again") != std::string::npos; }));
}

// No tokens, so nothing exclusive; it is not asked for again and again, and the rest goes on.
TEST_F(RedisFaults, AnErrorThatOneAcquireAlwaysMeetsIsItsAnswer) {
  const RedisServer server;
  server.is_known();
  server.command({"ACL", "SETUSER", "locks", "on", ">word", "allkeys", "&*", "+@all", "-incrby"});
  const Mount mount({}, "redis://locks:word@127.0.0.1:" + std::to_string(server.port()));
  const int shared = open_lock(mount, "shared");
  ASSERT_EQ(write_command(shared, "PR timeout=5s"), 0);
  const int fd = open_lock(mount, "alone");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(write_command(fd, "EX timeout=30s"), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(write_command(fd, "PR timeout=5s"), 0) << mount.log();
  EXPECT_NE(write_command(shared, "renew"), ESTALE) << own(shared, "this.error");
}

TEST_F(RedisFaults, AKeyOfSomebodyElseTakesOneNameAndNoOther) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, at(server.port(), "1s"));
  ASSERT_EQ(exclusive(mount, "before"), 0);
  server.set("lockfs:lock:default/x", "foreign");
  const int fd = open_lock(mount, "x");
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(write_command(fd, "EX timeout=5s"), EHOSTUNREACH);
    EXPECT_EQ(exclusive(mount, "other" + std::to_string(i)), 0);
  }
  const std::string log = mount.log();
  const size_t told = log.find("somebody else has made the key lockfs:lock:default/x");
  ASSERT_NE(told, std::string::npos) << log;
  EXPECT_LT(std::count(log.begin() + static_cast<ptrdiff_t>(told), log.end(), '\n'), 3) << log;
  // What is held goes on, and it is not ours to delete.
  EXPECT_EQ(exclusive(mount, "before"), EEXIST);
  EXPECT_EQ(server.command({"GET", "lockfs:lock:default/x"}), "foreign");
  server.command({"DEL", "lockfs:lock:default/x"});
  EXPECT_EQ(write_command(fd, "EX timeout=5s"), 0);
}

// What we hold, and somebody writes over it.
TEST_F(RedisFaults, AKeyThatIsWrittenOverIsALostLockAndNoMoreThanThat) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, at(server.port(), "1s"));
  const int lost = open_lock(mount, "lost");
  const int kept = open_lock(mount, "kept");
  ASSERT_EQ(write_command(lost, "EX timeout=5s"), 0);
  ASSERT_EQ(write_command(kept, "EX timeout=5s"), 0);
  server.set("lockfs:lock:default/lost", "foreign");
  server.command({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_TRUE(eventually([&] { return write_command(lost, "renew") == ESTALE; }));
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "new") == 0; })) << mount.log();
  EXPECT_NE(write_command(kept, "renew"), ESTALE) << own(kept, "this.error");
}

// A cache's server: what it throws away to make room could be a lock.
TEST_F(RedisFaults, AServerThatThrowsKeysAwayIsRefused) {
  const RedisServer server({"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"});
  server.is_known();
  EXPECT_THAT(refusal(at(server.port())), HasSubstr("its maxmemory-policy is allkeys-lru"));
  const Mount simple({}, at(server.port()) + "&layout=go-dlm");
  EXPECT_EQ(exclusive(simple, "none"), EHOSTUNREACH);
  EXPECT_THAT(simple.log(), HasSubstr("allkeys-lru, which throws locks away: set noeviction"));
  // Our keys have no time to live; those of the other layout have.
  server.command({"CONFIG", "SET", "maxmemory-policy", "volatile-lru"});
  const Mount mount({}, at(server.port()));
  EXPECT_EQ(exclusive(mount, "had"), 0) << mount.log();
  EXPECT_TRUE(
      eventually([&] { return simple.log().find("is volatile-lru") != std::string::npos; }));
  EXPECT_EQ(exclusive(simple, "none"), EHOSTUNREACH);
  server.command({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_TRUE(eventually([&] { return exclusive(simple, "none") == 0; })) << simple.log();
}

TEST_F(RedisFaults, AServerThatBeginsToThrowKeysAwayIsLeftWithinALeaseAndHoldersAreTold) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, at(server.port(), "1s"));
  const Mount simple({}, at(server.port(), "1s") + "&layout=go-dlm");
  const int held = open_lock(mount, "held");
  const int other = open_lock(simple, "other");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  ASSERT_EQ(write_command(other, "EX timeout=5s"), 0);
  server.command({"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"});
  server.command({"CONFIG", "SET", "maxmemory", "100mb"});
  for (const int fd : {held, other}) {
    EXPECT_TRUE(eventually([&] { return write_command(fd, "renew") == ESTALE; }, 4));
  }
  EXPECT_EQ(exclusive(mount, "new"), EHOSTUNREACH);
  for (const Mount* each : {&mount, &simple}) {
    EXPECT_THAT(each->log(), HasSubstr("its maxmemory-policy is allkeys-lru"));
  }
  server.command({"CONFIG", "SET", "maxmemory-policy", "noeviction"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "new") == 0; })) << mount.log();
}

// Its user may not ask for the policy: that is told, once.
TEST_F(RedisFaults, WithoutInfoTheOtherLayoutGoesOnAndSaysSo) {
  const RedisServer server;
  server.command({"ACL", "SETUSER", "locks", "on", ">word", "allkeys", "&*", "+@all", "-info"});
  const std::string login = "locks:word@127.0.0.1:" + std::to_string(server.port());
  const Mount mount({}, "redis://" + login + "?layout=go-dlm&lease=500ms");
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "had") == 0; })) << mount.log();
  server.command({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "again") == 0; })) << mount.log();
  const std::string log = mount.log();
  const size_t first = log.find("does not tell its maxmemory-policy");
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("does not tell its maxmemory-policy", first + 1), std::string::npos) << log;
}

}  // namespace
}  // namespace lockfs::test
