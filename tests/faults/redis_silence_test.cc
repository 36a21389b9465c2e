// SPDX-License-Identifier: MIT
// A Redis that says nothing, or is gone: who is told so, and when, and who waits on.
#include <gmock/gmock.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"
#include "tests/support/redis_server.h"

namespace lockfs::test {
namespace {

/// Two mounts, one of them over a network that can be broken.
class RedisSilence : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!RedisServer::is_here()) GTEST_SKIP() << "no redis-server here";
    server_ = std::make_unique<RedisServer>();
    server_->is_known();
    network_ = std::make_unique<Proxy>(server_->port());
    near_ = mount(server_->port(), "20s");
    far_ = mount(network_->port(), "20s");
  }
  static std::unique_ptr<Mount> mount(int port, const std::string& lease) {
    return std::make_unique<Mount>(std::vector<std::string>{},
                                   "redis://127.0.0.1:" + std::to_string(port) + "?lease=" + lease);
  }
  ~RedisSilence() override { close_all(); }

  std::unique_ptr<RedisServer> server_;
  std::unique_ptr<Proxy> network_;
  std::unique_ptr<Mount> near_;
  std::unique_ptr<Mount> far_;
};

// What the server has not said a word of has no place there. Others keep theirs.
TEST_F(RedisSilence, WhoAsksInASilenceHearsSoonAndWhoWaitedBeforeWaitsOn) {
  const int held = open_lock(*near_, "queue");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  const int up = open_lock(*far_, "up");
  ASSERT_EQ(write_command(up, "PR timeout=5s"), 0);
  auto waits = asks(open_lock(*far_, "queue"));
  ASSERT_TRUE(eventually([&] { return waiters(*near_, "queue") == 1; }));
  network_->part(true);
  const auto begin = std::chrono::steady_clock::now();
  auto fresh = asks(open_lock(*far_, "fresh"));
  auto upgrade = asks(up);
  for (auto* result : {&fresh, &upgrade}) EXPECT_EQ(result->get(), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(4500));
  ASSERT_EQ(write_command(held, "UN"), 0);
  network_->part(false);
  EXPECT_EQ(waits.get(), 0);
  EXPECT_EQ(own(up, "this.mode"), "PR");
  EXPECT_EQ(write_command(open_lock(*near_, "up"), "EX try"), EAGAIN);
  // What it may have been granted meanwhile nobody has.
  EXPECT_EQ(write_command(open_lock(*near_, "fresh"), "EX timeout=5s"), 0);
  EXPECT_EQ(write_command(up, "EX timeout=5s"), 0);
}

// Whoever is next here asks while the connection goes down.
TEST_F(RedisSilence, WhoIsNextAfterACancelInASilenceWaitsOnWhenTheServerIsThereAgain) {
  const int held = open_lock(*near_, "next");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  auto gives_up = asks(open_lock(*far_, "next"), "EX timeout=500ms");
  ASSERT_TRUE(eventually([&] { return waiters(*near_, "next") == 1; }));
  auto waits = asks(open_lock(*far_, "next"), "EX timeout=20s");
  ASSERT_TRUE(eventually([&] { return waiters(*far_, "next") == 2; }));
  network_->part(true);
  EXPECT_EQ(gives_up.get(), ETIMEDOUT);
  ASSERT_TRUE(eventually([&] {
    return picture_value(slurp(far_->path() + "/.lockfs/traits"), "default.status.state") != "up";
  }));
  network_->part(false);
  EXPECT_EQ(waits.wait_for(std::chrono::milliseconds(1500)), std::future_status::timeout)
      << far_->log();
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(waits.get(), 0);
}

// They wait in one queue, but not for each other when nobody can be asked.
TEST_F(RedisSilence, AllWhoWaitForALockHearWithinTwoSecondsThatTheServerIsGone) {
  near_ = mount(server_->port(), "1s");
  far_ = mount(server_->port(), "1s");
  ASSERT_EQ(write_command(open_lock(*near_, "queue"), "EX timeout=5s"), 0);
  std::vector<std::future<int>> results;
  for (int i = 0; i < 10; ++i) results.push_back(asks(open_lock(*far_, "queue")));
  ASSERT_TRUE(eventually([&] { return waiters(*far_, "queue") == 10; }));
  server_->kill();
  const auto begin = std::chrono::steady_clock::now();
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

}  // namespace
}  // namespace lockfs::test
