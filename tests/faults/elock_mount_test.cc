// SPDX-License-Identifier: MIT
// What is a mount's own that has its locks by elock: keys, what is said to the server, in which
// order, and who is told what; beside clients by hand.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/elock_server.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string source(int port, const std::string& timeout = "3s") {
  return "elock://127.0.0.1:" + std::to_string(port) + "?timeout=" + timeout;
}

TEST(ElockMount, AndClientsByHandExcludeEachOther) {
  const ElockServer server;
  const Mount mount({}, source(server.port()));
  ElockClient client(server.port());
  const auto exclusive = [&](const std::string& name) {
    const int fd = open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd >= 0 ? fd : -errno;
  };
  ASSERT_EQ(client.ask("lock job"), "200 Acquired");
  EXPECT_EQ(exclusive("job"), -EEXIST);
  ASSERT_EQ(client.ask("unlock job"), "200 Unlocked");
  const int fd = exclusive("job");
  ASSERT_GT(fd, 0);
  const uint64_t token = token_of(fd);
  EXPECT_GT(token, 0U);
  EXPECT_EQ(client.ask("lock job"), "409 Unavailable");
  client.say("lock job 10\n");
  close(fd);
  EXPECT_EQ(client.hear(), "200 Acquired");
  ASSERT_EQ(client.ask("unlock job"), "200 Unlocked");
  const int again = exclusive("job");
  ASSERT_GT(again, 0);
  EXPECT_GT(token_of(again), token);
  close(again);
  // Lockspaces, and names with bytes that keys cannot have.
  ASSERT_EQ(mkdir((mount.path() + "/web").c_str(), 0777), 0);
  const int odd = open((mount.path() + "/web/a b").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
  ASSERT_GE(odd, 0) << errno;
  EXPECT_EQ(client.ask("lock web/a%20b"), "409 Unavailable");
  close(odd);
}

// Else whoever may mkdir could free what others hold.
TEST(ElockMount, ALockspaceOfAnyNameIsOneWordToTheServer) {
  const ElockServer server;
  const Mount mount({}, source(server.port()));
  const auto exclusive = [&](const std::string& place) {
    const std::string path = mount.path() + "/" + place;
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd >= 0 ? fd : -errno;
  };
  const int job = exclusive("default/job");
  ASSERT_GE(job, 0);
  ElockClient client(server.port());
  client.say("echo here\nlock job 3600\n");
  ASSERT_EQ(client.hear(), "200 [\"here\"]");
  ElockClient other(server.port());
  const std::vector<std::pair<std::string, std::string>> spaces = {
      {"a b", "a%20b/n"},
      {"a\nunlock job\nb", "a%0Aunlock%20job%0Ab/n"},
      {"a\r\nunlock job\r\nb", "a%0D%0Aunlock%20job%0D%0Ab/n"},
      {"a%20b", "a%2520b/n"}};
  for (const auto& [space, key] : spaces) {
    ASSERT_EQ(mkdir((mount.path() + "/" + space).c_str(), 0777), 0) << key;
    const int fd = exclusive(space + "/n");
    ASSERT_GE(fd, 0) << key << ": " << std::strerror(-fd);
    EXPECT_EQ(other.ask("lock " + key), "409 Unavailable");
    EXPECT_EQ(exclusive(space + "/n"), -EEXIST) << key;
    close(fd);
  }
  EXPECT_EQ(other.ask("lock job"), "409 Unavailable") << "it is held as before";
  close(job);
  EXPECT_EQ(client.hear(), "200 Acquired") << "and has been waited for until now";
}

// By it whoever reads it could take up the mount's session.
TEST(ElockMount, TheIdOfItsSessionIsShownNowhere) {
  const ElockServer server;
  const Mount mount({}, source(server.port()));
  const int fd = open(mount.lock("held").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  ASSERT_GE(fd, 0);
  std::string shown = own(fd, "this.error") + slurp(mount.lock("held")) + mount.log();
  for (const char* file : {"traits", "config", "metrics", "locks.json", "waits", "version"}) {
    shown += slurp(mount.path() + "/.lockfs/" + file);
  }
  EXPECT_THAT(shown, Not(testing::ContainsRegex("lockfs-[0-9a-f]{24}")));
  const std::string traits = slurp(mount.path() + "/.lockfs/traits");
  EXPECT_EQ(picture_value(traits, "default.status.state"), "up") << "there is something to read";
  close(fd);
}

TEST(ElockMount, ItTellsWhatTheServerTellsOfItself) {
  const ElockServer server;
  const Mount mount({}, source(server.port(), "2s"));
  ElockClient client(server.port());
  ASSERT_EQ(client.ask("lock theirs"), "200 Acquired");
  EXPECT_TRUE(eventually([&] {
    const std::string traits = slurp(mount.path() + "/.lockfs/traits");
    return picture_value(traits, "default.status.server_clients") == "2" &&
           picture_value(traits, "default.status.server_locks") == "1";
  })) << slurp(mount.path() + "/.lockfs/traits");
}

TEST(ElockMount, WhatIsHeldIsLockedAgainAfterARestartAndElseLost) {
  ElockServer server;
  Proxy network(server.port());
  const Mount mount({}, source(network.port(), "5s"));
  const auto hold = [&](const std::string& name) {
    const int fd = open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    EXPECT_EQ(write_command(fd, "EX timeout=5s"), 0);
    return fd;
  };
  const int kept = hold("kept");
  const int taken = hold("taken");
  network.part(true);  // Somebody else is faster.
  server.kill();
  server.start();
  ElockClient fast(server.port());
  ASSERT_EQ(fast.ask("lock taken"), "200 Acquired");
  network.part(false);
  EXPECT_TRUE(eventually([&] { return write_command(taken, "renew") == ESTALE; }));
  EXPECT_THAT(own(taken, "this.error"), HasSubstr("was restarted"));
  EXPECT_NE(write_command(kept, "renew"), ESTALE);
  EXPECT_TRUE(eventually([&] { return fast.ask("lock kept") == "409 Unavailable"; }));
  close(kept);
  close(taken);
}

TEST(ElockMount, WhoWaitsHearsWithinThreeSecondsThatTheServerSaysNothing) {
  const ElockServer server;
  Proxy network(server.port());
  const Mount mount({}, source(network.port(), "30s"));
  ElockClient client(server.port());
  ASSERT_EQ(client.ask("lock silent"), "200 Acquired");
  Child waits([path = mount.lock("silent")] {
    return write_command(open(path.c_str(), O_RDWR | O_CREAT, 0666), "EX");
  });
  const auto waiters = [&] { return picture_value(slurp(mount.lock("silent")), "waiters_total"); };
  ASSERT_TRUE(eventually([&] { return waiters() == "1"; })) << mount.log();
  usleep(1200000);  // Longer than it is patient with a server that is gone.
  network.part(true);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(waits.wait(), EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(3500));
}

// A mount that is 20 ms away from its server, and waits for what a client has.
class ElockFar : public DescriptorTest {
 protected:
  ElockFar() { network_.slow(20); }
  // So many that wait.
  void wait_for(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const std::string name = "v" + std::to_string(i);
      ASSERT_EQ(client_.ask("lock " + name), "200 Acquired");
      waiters_.push_back(std::make_unique<Child>([path = mount_.lock(name)] {
        return write_command(open(path.c_str(), O_RDWR | O_CREAT, 0666), "EX timeout=60s");
      }));
    }
    const std::string all = "lockfs_waiters{lockspace=\"default\"} " + std::to_string(count) + "\n";
    EXPECT_TRUE(eventually(
        [&] { return slurp(mount_.path() + "/.lockfs/metrics").find(all) != std::string::npos; }));
  }
  ElockServer server_;
  Proxy network_{server_.port()};
  Mount mount_{{}, source(network_.port())};
  ElockClient client_{server_.port()};
  std::vector<std::unique_ptr<Child>> waiters_;
};

TEST_F(ElockFar, WhoeverAsksAnewDoesNotStandBehindThoseWhoWait) {
  wait_for(80);
  for (int i = 0; i < 5; ++i) {
    const auto asked = std::chrono::steady_clock::now();
    EXPECT_EQ(exclusive(mount_, "free" + std::to_string(i)), 0);
    EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::milliseconds(400));
  }
  ASSERT_EQ(client_.ask("unlock v7"), "200 Unlocked");
  EXPECT_EQ(end_of(*waiters_.at(7), 20), 0) << "and those come to their turn";
}

TEST_F(ElockFar, WhoWaitsComesToItsTurnHoweverManyTryAgainAndAgain) {
  wait_for(1);
  std::vector<std::unique_ptr<Child>> busy;
  for (int i = 0; i < 4; ++i) {
    const std::string name = "busy" + std::to_string(i);
    ASSERT_EQ(client_.ask("lock " + name), "200 Acquired");
    busy.push_back(std::make_unique<Child>([path = mount_.lock(name)] {
      const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      while (write_command(fd, "EX try") == EAGAIN) continue;
      return 1;
    }));
  }
  ASSERT_EQ(client_.ask("unlock v0"), "200 Unlocked");
  EXPECT_EQ(end_of(*waiters_.at(0), 5), 0);
}

TEST_F(ElockFar, WhoWaitsComesToItsTurnHoweverManyTakeWhatIsFree) {
  wait_for(1);
  std::vector<std::unique_ptr<Child>> busy;
  for (int i = 0; i < 4; ++i) {
    busy.push_back(std::make_unique<Child>([path = mount_.lock("busy" + std::to_string(i))] {
      const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      while (write_command(fd, "EX") == 0 && write_command(fd, "UN") == 0) continue;
      return 1;
    }));
  }
  ASSERT_TRUE(
      eventually([&] { return picture_value(slurp(mount_.lock("busy3")), "stats.grants") > "1"; }));
  ASSERT_EQ(client_.ask("unlock v0"), "200 Unlocked");
  EXPECT_EQ(end_of(*waiters_.at(0), 5), 0);
}

TEST_F(ElockFar, HoweverManyWaitWhatIsHeldStaysSo) {
  const int held = open_lock(mount_, "held");
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  wait_for(150);
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < std::chrono::seconds(10)) {
    ASSERT_NE(write_command(held, "renew"), ESTALE) << own(held, "this.error") << mount_.log();
    usleep(20000);
  }
  EXPECT_EQ(client_.ask("lock held"), "409 Unavailable");
}

TEST(ElockMount, WhyTheServerRefusesIsSaidInItsWords) {
  const ElockServer server("clients=1,locks=2");
  const auto state_of = [](const Mount& mount) {
    return picture_value(slurp(mount.path() + "/.lockfs/traits"), "default.status.state");
  };
  const Mount mount({}, source(server.port()));
  ASSERT_TRUE(eventually([&] { return state_of(mount) == "up"; })) << mount.log();
  const Mount second({}, source(server.port()));
  EXPECT_TRUE(eventually([&] { return state_of(second) == "it says '400 Too many clients'"; }))
      << second.log();
  std::vector<int> held;
  for (const char* name : {"a", "b"}) {
    held.push_back(open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    EXPECT_GE(held.back(), 0) << errno;
  }
  EXPECT_EQ(open(mount.lock("c").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), -1);
  EXPECT_EQ(errno, ENOLCK);
  for (const int fd : held) close(fd);
}

}  // namespace
}  // namespace lockfs::test
