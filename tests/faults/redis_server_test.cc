// SPDX-License-Identifier: MIT
// What is Redis' own: how it is reached, what it refuses, what it forgets.
#include "tests/support/redis_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string>;

class RedisBackendTest : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!RedisServer::is_here()) GTEST_SKIP() << "no redis-server here";
  }
  static std::string tcp(const RedisServer& server, const std::string& rest = "",
                         const std::string& login = "") {
    return "redis://" + login + "127.0.0.1:" + std::to_string(server.port()) + rest;
  }
  static std::string error_of(int fd) { return own(fd, "this.error"); }
};

TEST_F(RedisBackendTest, IsReachedByPortSocketAndNameAndEachDatabaseAndPrefixIsItsOwn) {
  const RedisServer server;
  server.is_known();
  server.is_known("other");
  server.command({"SELECT", "1"});
  EXPECT_TRUE(share(tcp(server), "redis+unix://" + server.socket()));
  EXPECT_TRUE(share(tcp(server, "/0"), "redis://localhost:" + std::to_string(server.port())));
  EXPECT_FALSE(share(tcp(server), tcp(server, "?prefix=other")));
  EXPECT_TRUE(share(tcp(server, "/0?prefix=other"), tcp(server, "?prefix=other")));
}

TEST_F(RedisBackendTest, EachDatabaseIsItsOwn) {
  const RedisServer server;
  server.is_known();
  EXPECT_FALSE(share(tcp(server, "/3?lease=500ms"), tcp(server, "/0")));
  {
    // Messages are of the whole server: what is shown in one database is not in another.
    const Mount three({}, tcp(server, "/3"));
    const Mount zero({}, tcp(server, "/0"));
    const int fd = open_lock(three, "shown");
    ASSERT_EQ(write_command(fd, "EX timeout=5s note=three"), 0);
    const Mount also_three({}, tcp(server, "/3"));
    ASSERT_TRUE(eventually([&] { return access(also_three.lock("shown").c_str(), F_OK) == 0; }));
    EXPECT_EQ(exclusive(zero, "shown"), 0);
  }
  EXPECT_TRUE(share(tcp(server, "/3"), "redis+unix://" + server.socket() + "?db=3"));
}

TEST_F(RedisBackendTest, PasswordsAreAskedForAndNotShown) {
  const RedisServer server({"--requirepass", "geheim"});
  server.is_known();
  EXPECT_THAT(refusal(tcp(server)), HasSubstr("NOAUTH"));
  EXPECT_THAT(refusal(tcp(server, "", ":wrong@")), HasSubstr("WRONGPASS"));
  const Mount mount({}, tcp(server, "", ":geheim@"));
  EXPECT_EQ(exclusive(mount, "in"), 0);
  for (const std::string& text :
       {slurp("/proc/mounts"), slurp(mount.path() + "/.lockfs/config"), mount.log()}) {
    EXPECT_THAT(text, testing::Not(HasSubstr("geheim")));
  }
  const std::string file = server.directory() + "/password";
  std::ofstream(file) << "geheim\n";
  const Mount by_file({}, tcp(server, "?password-file=" + file));
  EXPECT_EQ(exclusive(by_file, "in"), EEXIST);
}

TEST_F(RedisBackendTest, AUserNeedsNoMoreThanTheReadmeSays) {
  const RedisServer server;
  server.is_known();
  server.command({"ACL",       "SETUSER",       "locks",     "on",         ">word",    "resetkeys",
                  "~lockfs:*", "resetchannels", "&lockfs:*", "-@all",      "+ping",    "+select",
                  "+info",     "+script|load",  "+evalsha",  "+subscribe", "+publish", "+get",
                  "+set",      "+del",          "+exists",   "+incr",      "+incrby",  "+time",
                  "+hget",     "+hset",         "+hdel",     "+hkeys",     "+hgetall", "+sadd",
                  "+srem",     "+smembers"});
  const Mount mount({}, tcp(server, "", "locks:word@"));
  EXPECT_EQ(exclusive(mount, "in"), 0) << mount.log();
  EXPECT_EQ(server.command({"HGET", "lockfs:lock:default/in", "#"}), "");
  EXPECT_THAT(server.command({"KEYS", "lockfs:lock:*"}), HasSubstr("default/in"));
  EXPECT_THAT(refusal(tcp(server, "", "locks:wrong@")), HasSubstr("WRONGPASS"));
}

TEST_F(RedisBackendTest, ByTlsItIsReachedWhenItProvesWhoItIs) {
  const Certificate certificate;
  const int port = free_port();
  {
    const RedisServer server({"--tls-port", std::to_string(port), "--tls-cert-file",
                              certificate.file(), "--tls-key-file", certificate.key(),
                              "--tls-ca-cert-file", certificate.file()});
    server.is_known();
    const auto url = [&](const std::string& host, const std::string& rest) {
      return "rediss://" + host + ":" + std::to_string(port) + "?cert=" + certificate.file() +
             "&key=" + certificate.key() + rest;
    };
    EXPECT_TRUE(share(url("127.0.0.1", "&ca=" + certificate.file()), tcp(server)));
    EXPECT_TRUE(
        share(url("localhost", "&ca=" + certificate.file()), url("127.0.0.1", "&verify=no")));
    const Mount stranger({}, url("127.0.0.1", ""));
    EXPECT_EQ(exclusive(stranger, "x"), EHOSTUNREACH);
    EXPECT_THAT(stranger.log(), HasSubstr("self-signed certificate"));
  }
}

TEST_F(RedisBackendTest, AFullOrReadOnlyServerIsAnUnreachableOneAndSaysWhy) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, tcp(server, "?lease=2s"));
  const int held = open_lock(mount, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  server.command({"CONFIG", "SET", "maxmemory", "1"});
  EXPECT_EQ(exclusive(mount, "full"), EHOSTUNREACH);
  EXPECT_THAT(mount.log(), HasSubstr("OOM"));
  EXPECT_TRUE(eventually([&] { return write_command(held, "renew") == ESTALE; }));
  server.command({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "full") == 0; })) << mount.log();
  server.command({"REPLICAOF", "127.0.0.1", "1"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "readonly") == EHOSTUNREACH; }));
  EXPECT_TRUE(eventually([&] { return mount.log().find("READONLY") != std::string::npos; }));
  server.command({"REPLICAOF", "NO", "ONE"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "writable") == 0; })) << mount.log();
}

TEST_F(RedisBackendTest, WhoEmptiesTheDatabaseTakesNoLockFromAHolder) {
  const RedisServer server;
  server.is_known();
  const Mount one({}, tcp(server, "?lease=500ms"));
  const Mount two({}, tcp(server, "?lease=500ms"));
  // Older than a lease: that its data is lost only those know who had some.
  ASSERT_TRUE(eventually([&] {
    const std::string info = server.command({"INFO", "server"});
    return std::atoi(info.c_str() + info.find("uptime_in_seconds:") + 18) >= 2;
  }));
  const int held = open_lock(one, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  const uint64_t token = token_of(held);
  server.command({"FLUSHALL"});
  for (int i = 0; i < 200; ++i) ASSERT_NE(exclusive(two, "held"), 0);
  EXPECT_TRUE(eventually([&] { return exclusive(two, "other") == 0; })) << two.log();
  EXPECT_EQ(exclusive(two, "held"), EEXIST);
  EXPECT_NE(write_command(held, "renew"), ESTALE) << error_of(held);
  ASSERT_EQ(write_command(held, "UN"), 0);
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  EXPECT_GT(token_of(held), token);
}

// Under their own eyes, somebody else was granted it: whoever comes back is told.
TEST_F(RedisBackendTest, AHolderWhoseRecordIsGoneIsTold) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, tcp(server, "?lease=1s"));
  const int held = open_lock(mount, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  server.command({"DEL", "lockfs:lock:default/held"});
  server.command({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_TRUE(eventually([&] { return write_command(held, "renew") == ESTALE; }));
  EXPECT_THAT(error_of(held), HasSubstr("has lost it"));
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return write_command(held, "EX try") == 0; })) << mount.log();
}

// The server's clock jumps: neither a lease nor the order of tokens depends on it.
TEST_F(RedisBackendTest, WhenTheServersClockJumpsNothingIsLostAndTokensGrow) {
  const std::string file = "/tmp/lockfs-clock-" + std::to_string(getpid());
  const auto set_clock = [&](int64_t seconds) {
    std::ofstream(file, std::ios::in | std::ios::out)
        .write(reinterpret_cast<const char*>(&seconds), sizeof seconds);
  };
  std::ofstream(file) << std::string(8, '\0');
  {
    const RedisServer server(
        {}, {"env", std::string("LD_PRELOAD=") + CLOCK_JUMP, "LOCKFS_CLOCK_FILE=" + file});
    server.is_known();
    const Mount one({}, tcp(server, "?lease=1s"));
    const Mount two({}, tcp(server, "?lease=1s"));
    const int held = open_lock(one, "held");
    ASSERT_EQ(write_command(held, "EX"), 0);
    uint64_t token = 0;
    for (const int64_t offset : {7200, -7200, 0, 100000}) {
      const std::string before = server.command({"TIME"});
      set_clock(offset);
      EXPECT_NE(before.substr(0, 7), server.command({"TIME"}).substr(0, 7)) << "it did not jump";
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
      while (std::chrono::steady_clock::now() < end) {
        ASSERT_EQ(exclusive(two, "held"), EEXIST);
        ASSERT_NE(write_command(held, "renew"), ESTALE) << error_of(held);
      }
      // Each mount in turn, so that neither takes what it kept.
      for (const Mount* mount : {&one, &two}) {
        const int fd = open_lock(*mount, "other");
        ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0) << mount->log();
        EXPECT_GT(token_of(fd), token) << offset;
        token = token_of(fd);
        ASSERT_EQ(write_command(fd, "UN"), 0);
      }
    }
  }
  unlink(file.c_str());
}

TEST_F(RedisBackendTest, WithoutItsScriptTheServerGetsItAgain) {
  const RedisServer server;
  server.is_known();
  const Mount mount({}, tcp(server));
  const int held = open_lock(mount, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  server.command({"SCRIPT", "FLUSH"});
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "again") == 0; }));
  EXPECT_NE(write_command(held, "renew"), ESTALE) << error_of(held);
}

// The first mount of a new server may be one of many whose locks it has lost.
TEST_F(RedisBackendTest, ANewServerGrantsNothingForALease) {
  const RedisServer server;
  const auto begin = std::chrono::steady_clock::now();
  const Mount mount({}, tcp(server, "?lease=1s"));
  const int result = exclusive(mount, "first");
  EXPECT_EQ(result, EHOSTUNREACH);
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "first") == 0; })) << mount.log();
  EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  EXPECT_THAT(mount.log(), HasSubstr("nothing is granted for a lease"));
}

TEST_F(RedisBackendTest, WithoutAServerTheMountIsThereAndWaitsForIt) {
  RedisServer server;
  server.kill();
  const Mount mount({}, tcp(server, "?lease=1s"));
  EXPECT_THAT(mount.log(), HasSubstr("out of reach: Connection refused"));
  EXPECT_EQ(exclusive(mount, "none"), EHOSTUNREACH);
  server.start();
  EXPECT_TRUE(eventually([&] { return exclusive(mount, "none") == 0; })) << mount.log();
}

TEST_F(RedisBackendTest, UrlsThatMeanNothingAreRefusedInWords) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"redis:", "takes //HOST:PORT/DB"},
      {"redis://", "a host is missing"},
      {"redis://h:0", "the port '0'"},
      {"redis://h:99999", "the port '99999'"},
      {"redis://h/x", "the number of a database"},
      {"redis://[::1", "']' is missing"},
      {"redis://h?lease=5", "is not a duration"},
      {"redis://h?lease=1h", "takes 500ms to 10m"},
      {"redis://h?layout=x", "takes lockfs or go-dlm"},
      {"redis://h?ca=x", "is unknown; known: lease"},
      {"redis://h?password-file=/nowhere", "cannot read"},
      {"redis://u@h", "a user, but no password"},
      {"redis+unix://x", "takes the path of a socket"},
      {"rediss://h?verify=perhaps", "takes yes or no"}};
  for (const auto& [url, words] : wrong) EXPECT_THAT(refusal(url), HasSubstr(words)) << url;
}

}  // namespace
}  // namespace lockfs::test
