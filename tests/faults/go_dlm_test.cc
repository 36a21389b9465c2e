// SPDX-License-Identifier: MIT
// redis://...?layout=go-dlm beside programs that lock by SET NX PX: what go-dlm sends, word by
// word, and redis-py's Lock.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <future>
#include <thread>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"
#include "tests/support/redis_server.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;

constexpr const char* kRelease =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 "
    "end";
constexpr const char* kOther = "Zm9yZWlnbi10b2tlbi1vZi0zMi1yYW5kb20tYnl0ZXM=";

class GoDlm : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!RedisServer::is_here()) GTEST_SKIP() << "no redis-server here";
    server_ = std::make_unique<RedisServer>();
    mount_ = std::make_unique<Mount>(std::vector<std::string>{}, source(server_->port()));
  }
  static std::string source(int port, const std::string& lease = "2s") {
    return "redis://127.0.0.1:" + std::to_string(port) + "?layout=go-dlm&lease=" + lease +
           "&prefix=test%2F";
  }
  int open_lock(const std::string& name) { return DescriptorTest::open_lock(*mount_, name); }
  int open_lock(const Mount& mount, const std::string& name) {
    return DescriptorTest::open_lock(mount, name);
  }
  int exclusive(const std::string& name) { return DescriptorTest::exclusive(*mount_, name); }
  int exclusive(const Mount& mount, const std::string& name) {
    return DescriptorTest::exclusive(mount, name);
  }
  // As go-dlm's Lock() and Unlock().
  bool foreign_lock(const std::string& key, const std::string& seconds = "15") {
    return server_->command({"set", key, kOther, "ex", seconds, "nx"}) == "OK";
  }
  bool foreign_unlock(const std::string& key) {
    return server_->command({"eval", kRelease, "1", key, kOther}) == "1";
  }

  std::unique_ptr<RedisServer> server_;
  std::unique_ptr<Mount> mount_;
};

TEST_F(GoDlm, AForeignProgramAndTheMountExcludeEachOther) {
  ASSERT_TRUE(foreign_lock("test/job"));
  EXPECT_EQ(exclusive("job"), EEXIST);
  const int waits = open_lock("job");
  EXPECT_EQ(write_command(waits, "EX timeout=300ms"), ETIMEDOUT);
  ASSERT_TRUE(foreign_unlock("test/job"));
  EXPECT_EQ(write_command(waits, "EX timeout=5s"), 0);
  EXPECT_FALSE(foreign_lock("test/job"));
  EXPECT_FALSE(foreign_unlock("test/job")) << "it is not theirs";
  ASSERT_EQ(write_command(waits, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return foreign_lock("test/job"); }));
}

TEST_F(GoDlm, AWaiterHasItWhenAForeignProgramLetsGoOrDies) {
  ASSERT_TRUE(foreign_lock("test/next", "1"));  // It ends by itself.
  Child waits([path = mount_->lock("next")] {
    return write_command(open(path.c_str(), O_RDWR | O_CREAT, 0666), "EX timeout=10s");
  });
  EXPECT_EQ(waits.wait(), 0);
}

TEST_F(GoDlm, WhatIsHeldIsRenewedAndEachGrantHasATokenOfItsOwn) {
  const int fd = open_lock("long");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  const uint64_t token = token_of(fd);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  while (std::chrono::steady_clock::now() < end) {
    ASSERT_FALSE(foreign_lock("test/long"));
    ASSERT_NE(write_command(fd, "renew"), ESTALE) << own(fd, "this.error");
  }
  ASSERT_EQ(write_command(fd, "UN"), 0);
  ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
  EXPECT_GT(token_of(fd), token);
}

TEST_F(GoDlm, SixModesWithinTheMountAndOneTowardsOthers) {
  const int one = open_lock("modes");
  const int two = open_lock("modes");
  ASSERT_EQ(write_command(one, "PR"), 0);
  EXPECT_EQ(write_command(two, "PR try"), 0);
  EXPECT_EQ(write_command(two, "EX try"), EAGAIN);
  EXPECT_FALSE(foreign_lock("test/modes"));
  const Mount other({}, source(server_->port()));
  EXPECT_EQ(write_command(open_lock(other, "modes"), "PR try"), EAGAIN);
}

TEST_F(GoDlm, AKeyThatIsTakenAwayIsALostLock) {
  const int fd = open_lock("stolen");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  server_->command({"DEL", "test/stolen"});
  ASSERT_TRUE(foreign_lock("test/stolen"));
  EXPECT_TRUE(eventually([&] { return write_command(fd, "renew") == ESTALE; }, 3));
  EXPECT_THAT(own(fd, "this.error"), HasSubstr("somebody else's"));
}

TEST_F(GoDlm, AHolderIsToldBeforeItsKeyEnds) {
  Proxy network(server_->port());
  const Mount far({}, source(network.port()));
  const int fd = open_lock(far, "far");
  ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
  network.part(true);
  bool told = false;
  EXPECT_TRUE(eventually([&] {
    const bool gone = server_->command({"EXISTS", "test/far"}) == "0";
    told = told || write_command(fd, "renew") == ESTALE;
    return gone;
  }));
  EXPECT_TRUE(told);
  network.part(false);
  EXPECT_TRUE(eventually([&] { return write_command(open_lock(far, "again"), "EX try") == 0; }));
}

// Whenever in its turn of looking the network goes.
TEST_F(GoDlm, AHolderOfAShortLeaseIsToldBeforeItsKeyEndsToo) {
  Proxy network(server_->port());
  const Mount far({}, source(network.port(), "500ms"));
  for (int i = 0; i < 8; ++i) {
    const std::string name = "short" + std::to_string(i);
    const int fd = open_lock(far, name);
    ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(13 * i));
    network.part(true);
    bool told = false;
    EXPECT_TRUE(eventually([&] {
      const bool gone = server_->command({"EXISTS", "test/" + name}) == "0";
      told = told || write_command(fd, "renew") == ESTALE;
      return gone;
    }));
    EXPECT_TRUE(told) << i;
    network.part(false);
    EXPECT_TRUE(eventually([&] { return exclusive(far, name) == 0; })) << far.log();
  }
}

// A new token is asked for by a claim that is kept. Somebody may have had the key since. The lease
// is so long that no renewal tells it first.
TEST_F(GoDlm, WhoConvertsAfterItsKeyWentIsToldOfTheLoss) {
  const Mount mount({}, source(server_->port(), "1m"));
  for (const std::string other : {"", "another"}) {
    const std::string name = "gone" + other;
    const int fd = open_lock(mount, name);
    ASSERT_EQ(write_command(fd, "EX timeout=5s"), 0);
    ASSERT_EQ(write_command(fd, "PR"), 0);
    server_->command({"DEL", "test/" + name});
    if (!other.empty()) server_->command({"SET", "test/" + name, other});
    EXPECT_EQ(write_command(fd, "EX timeout=5s"), ESTALE) << name;
    EXPECT_THAT(own(fd, "this.error"), HasSubstr("somebody else's"));
    EXPECT_EQ(server_->command({"EXISTS", "test/" + name}), other.empty() ? "0" : "1");
  }
}

TEST_F(GoDlm, WhoAsksBesideAHolderWhoseKeyWentHasItAnewAndTheHolderIsTold) {
  const Mount mount({}, source(server_->port(), "1m"));
  const int held = open_lock(mount, "beside");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  const uint64_t token = token_of(held);
  ASSERT_EQ(write_command(held, "CR"), 0);
  server_->command({"DEL", "test/beside"});
  const int next = open_lock(mount, "beside");
  EXPECT_EQ(write_command(next, "PW timeout=5s"), 0);
  EXPECT_GT(token_of(next), token);
  EXPECT_EQ(write_command(held, "renew"), ESTALE);
  EXPECT_FALSE(foreign_lock("test/beside"));
}

TEST_F(GoDlm, WhoWaitsHearsWithinThreeSecondsThatTheServerSaysNothing) {
  Proxy network(server_->port());
  const Mount far({}, source(network.port(), "1m"));
  ASSERT_TRUE(foreign_lock("test/silent"));
  auto waits = asks(open_lock(far, "silent"));
  EXPECT_EQ(waits.wait_for(std::chrono::milliseconds(1200)), std::future_status::timeout);
  network.part(true);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(waits.get(), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(3500));
}

// They wait in one queue, but not for each other when nobody can be asked.
TEST_F(GoDlm, AllWhoWaitHearWithinTwoSecondsThatTheServerIsGone) {
  ASSERT_TRUE(foreign_lock("test/queue"));
  std::vector<std::future<int>> results;
  for (int i = 0; i < 10; ++i) results.push_back(asks(open_lock("queue")));
  ASSERT_TRUE(eventually([&] { return waiters(*mount_, "queue") == 10; }));
  server_->kill();
  const auto begin = std::chrono::steady_clock::now();
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(GoDlm, WhoHasWaitedLongerThanPatienceOutlivesACut) {
  Proxy network(server_->port());
  const Mount far({}, source(network.port(), "10s"));
  ASSERT_TRUE(foreign_lock("test/long"));
  auto result = asks(open_lock(far, "long"));
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(1200)), std::future_status::timeout);
  network.cut();
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(500)), std::future_status::timeout);
  ASSERT_TRUE(foreign_unlock("test/long"));
  EXPECT_EQ(result.get(), 0);
}

TEST_F(GoDlm, WithoutAServerEveryAcquireAnswersWithinASecond) {
  server_->kill();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(exclusive("none"), EHOSTUNREACH);
  EXPECT_EQ(write_command(open_lock("none"), "EX"), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(2300));
  server_->start();
  EXPECT_TRUE(eventually([&] { return exclusive("none") == 0; })) << mount_->log();
}

TEST_F(GoDlm, APinIsTheMountsOwn) {
  open_lock("pinned");
  ASSERT_EQ(utimensat(AT_FDCWD, mount_->lock("pinned").c_str(), nullptr, 0), -1) << "it is free";
  const int fd = open_lock("pinned");
  ASSERT_EQ(futimens(fd, nullptr), 0);
  EXPECT_EQ(access(mount_->lock("pinned").c_str(), F_OK), 0);
  EXPECT_EQ(unlink(mount_->lock("pinned").c_str()), 0);
  EXPECT_EQ(access(mount_->lock("pinned").c_str(), F_OK), -1);
}

TEST_F(GoDlm, RedisPysLockAndTheMountExcludeEachOther) {
  const std::string script = R"(
import redis, sys
lock = redis.Redis(unix_socket_path=sys.argv[1]).lock('test/py', timeout=5)
sys.exit(0 if lock.acquire(blocking=False) else 7)
)";
  const auto python = [&] {
    Child child([&] {
      execl("/usr/bin/python3", "python3", "-c", script.c_str(), server_->socket().c_str(),
            nullptr);
      return 127;
    });
    return child.wait();
  };
  const int fd = open_lock("py");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  EXPECT_EQ(python(), 7);
  ASSERT_EQ(write_command(fd, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return python() == 0; }));
  EXPECT_EQ(exclusive("py"), EEXIST);
}

}  // namespace
}  // namespace lockfs::test
