// SPDX-License-Identifier: MIT
// Events that etcd never tells, as some of its versions do when a watcher is slow (etcd #17555,
// #18089). Here the network loses them: a mount whose picture lacks a change grants by what the
// cluster says all the same, and mends the picture.
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/contract/witness.h"
#include "tests/faults/etcd_test.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

class EtcdEvents : public Etcd {
 protected:
  void SetUp() override {
    Etcd::SetUp();
    if (IsSkipped()) return;
    server_ = std::make_unique<EtcdServer>();
    network_ = std::make_unique<Proxy>(server_->port(), true);
    blind_ = std::make_unique<Mount>(
        std::vector<std::string>{},
        "etcd://127.0.0.1:" + std::to_string(network_->port()) + "?lease=3s");
    sees_ = std::make_unique<Mount>(std::vector<std::string>{}, source(*server_));
  }
  ~EtcdEvents() override {
    close_all();
    blind_.reset();
    sees_.reset();
  }
  /// Nobody tells the blind mount what `change` does to a lock, in so many messages. A key of a
  /// mount is written twice: who holds it comes a moment later.
  void lose(const std::string& name, const std::function<void()>& change, int messages = 1) {
    const int before = network_->lost();
    network_->lose("default/" + name + "/");
    change();
    ASSERT_TRUE(eventually([&] { return network_->lost() >= before + messages; })) << name;
    network_->lose("");
  }
  /// Holds PR, as a mount does that says who holds it at once.
  void share(const std::string& name) {
    server_->ctl("put default/" + name + "/1 'lockfs PR - pid=1 host=there' >/dev/null");
  }
  void unshare(const std::string& name) { server_->ctl("del default/" + name + "/1 >/dev/null"); }
  /// Tells the blind mount of something later; what was before is told then, or lost.
  void tell() {
    const std::string name = "told" + std::to_string(++told_);
    share(name);
    ASSERT_TRUE(eventually([&] { return is_seen(name); }));
  }
  /// Holds PR, and all that is to be told of that has been told.
  int hold_shared(const std::string& name) {
    const int fd = open_lock(*blind_, name);
    EXPECT_EQ(write_command(fd, "PR"), 0);
    const std::string get = "get --prefix --print-value-only default/" + name + "/";
    EXPECT_TRUE(eventually([&] { return server_->ctl(get).find("pid=") != std::string::npos; }));
    tell();
    return fd;
  }
  bool is_seen(const std::string& name) { return access(blind_->lock(name).c_str(), F_OK) == 0; }

  std::unique_ptr<EtcdServer> server_;
  std::unique_ptr<Proxy> network_;
  std::unique_ptr<Mount> blind_;
  std::unique_ptr<Mount> sees_;

 private:
  int told_ = 0;
};

TEST_F(EtcdEvents, WhoWaitsIsNotGrantedWhatAnUntoldKeyHolds) {
  const std::string flag = server_->directory() + "/go";
  std::unique_ptr<Child> holds;
  lose("job", [&] {
    holds = foreign(*server_, "default/job", "until [ -e " + flag + " ]; do sleep 0.05; done");
  });
  tell();
  ASSERT_FALSE(is_seen("job")) << "it was told";
  const int fd = open_lock(*blind_, "job");
  EXPECT_EQ(write_command(fd, "EX timeout=1s"), ETIMEDOUT);
  EXPECT_THAT(blind_->log(), testing::HasSubstr("has not told of a change"));
  EXPECT_TRUE(is_seen("job"));
  std::ofstream(flag) << "x";
  EXPECT_EQ(write_command(fd, "EX timeout=10s"), 0);
  EXPECT_EQ(holds->wait(), 0);
}

TEST_F(EtcdEvents, WhoConvertsIsNotGrantedWhatAnUntoldKeyHolds) {
  const int fd = hold_shared("up");
  lose("up", [&] { share("up"); });
  tell();
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
  EXPECT_EQ(write_command(fd, "EX timeout=1s"), ETIMEDOUT);
  unshare("up");
  EXPECT_EQ(write_command(fd, "EX timeout=10s"), 0);
}

// Without anything later the picture cannot be known to be wrong.
TEST_F(EtcdEvents, WhoConvertsGoesOnThoughNothingLaterIsTold) {
  const int fd = hold_shared("up");
  lose("up", [&] { share("up"); });
  Child upgrades([&] { return write_command(fd, "EX timeout=20s"); });
  ASSERT_TRUE(eventually([&] { return waiters(*sees_, "up") == 1; }));
  unshare("up");
  EXPECT_EQ(upgrades.wait(), 0);
}

TEST_F(EtcdEvents, ATokenIsLaterThanThatOfAnUntoldConversion) {
  const int holds = open_lock(*sees_, "late");
  ASSERT_EQ(write_command(holds, "PR try"), 0);
  Common<std::atomic<uint64_t>> token;
  Child waits([&] {
    const int fd = open_lock(*blind_, "late");
    const int result = write_command(fd, "EX timeout=20s");
    *token = token_of(fd);
    return result;
  });
  ASSERT_TRUE(eventually([&] { return waiters(*sees_, "late") == 1; }));
  lose("late", [&] { ASSERT_EQ(write_command(holds, "EX"), 0); });
  const uint64_t converted = token_of(holds);
  ASSERT_EQ(write_command(holds, "UN"), 0);
  EXPECT_EQ(waits.wait(), 0);
  EXPECT_GT(token->load(), converted);
}

TEST_F(EtcdEvents, WhatIsHeldIsNotLostForAnUntoldKeyOfItsOwn) {
  const int held = open_lock(*blind_, "own");
  lose(
      "own", [&] { ASSERT_EQ(write_command(held, "EX try"), 0); }, 2);
  tell();
  const int waits = open_lock(*sees_, "own");
  EXPECT_EQ(write_command(waits, "EX timeout=500ms"), ETIMEDOUT);
  EXPECT_FALSE(is_lost(held)) << own(held, "this.error");
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(write_command(waits, "EX timeout=10s"), 0);
}

TEST_F(EtcdEvents, AnUntoldDeletionHoldsNobodyUpForLong) {
  share("ghost");
  const int fd = hold_shared("ghost");
  lose("ghost", [&] { unshare("ghost"); });
  EXPECT_EQ(write_command(fd, "EX timeout=20s"), 0);
}

// Also where something changes all the time, and where somebody has keys that are none of a lock.
TEST_F(EtcdEvents, AnUntoldDeletionIsFoundInABusyLockspace) {
  server_->ctl("put default/nameless x");
  share("ghost");
  tell();
  lose("ghost", [&] { unshare("ghost"); });
  ASSERT_EQ(exclusive(*blind_, "ghost"), EEXIST);
  Child busy([&] {
    for (int i = 0;; ++i) {
      const std::string path = sees_->lock("busy" + std::to_string(i % 50));
      close(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    }
    return 0;
  });
  EXPECT_TRUE(eventually([&] { return exclusive(*blind_, "ghost") == 0; }, 25));
  const std::string log = blind_->log();
  const size_t first = log.find("has not told of a change");
  EXPECT_EQ(log.find("has not told of a change", first + 1), std::string::npos) << log;
}

}  // namespace
}  // namespace lockfs::test
