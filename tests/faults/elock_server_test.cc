// SPDX-License-Identifier: MIT
// `lockfs serve elock://` as its clients meet it: the protocol word by word, sessions, limits, and
// what the original does wrong; and a mount beside clients by hand. The transcript is that of the
// original (dustin/elock on OTP 25), run beside it by hand, but for the ids and the last four
// lines.
#include "tests/support/elock_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "tests/contract/witness.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string source(const ElockServer& server) {
  return "elock://127.0.0.1:" + std::to_string(server.port()) + "?timeout=3s";
}

TEST(ElockServe, AnswersEachRequestAsTheOriginalDoes) {
  const ElockServer server;
  ElockClient client(server.port());
  const std::vector<std::pair<std::string, std::string>> transcript = {
      {"lock a", "200 Acquired"},
      {"lock a", "200 Acquired"},
      {"lock b 1", "200 Acquired"},
      {"echo x y", "200 [\"x\",\"y\"]"},
      {"unlock c", "403 not_locked"},
      {"unlock a", "200 Unlocked"},
      {"unlock a", "403 not_locked"},
      {"set_timeout 500", "200 timeout set"},
      {"conn_id foo", "403 cannot set conn id"},
      {"foo bar", "400 Unknown command: \"foo\""},
      {"lock", "400 Unknown command: \"lock\""},
      {"lock a 1 2", "400 Unknown command: \"lock\""},
      {"  lock   a  \r", "200 Acquired"},
      {"", "400 Unknown command: \"\""},
      {"lock z abc", "400 Not a number of seconds: 'abc'"},
      {"lock z -1", "400 Not a number of seconds: '-1'"},
      {"set_timeout -1",
       "400 Not a number of milliseconds: '-1' is not a whole number from 0 to 3600000"},
  };
  for (const auto& [request, answer] : transcript)
    EXPECT_EQ(client.ask(request), answer) << request;
  EXPECT_EQ(client.ask("stats"), "200 STATS");
  EXPECT_EQ(client.hear(), "STAT clients 1");
  EXPECT_EQ(client.hear(), "STAT locks 2");
  EXPECT_EQ(client.hear(), "STAT monitoring 1");
  EXPECT_EQ(client.hear(), "END");
  ElockClient other(server.port());
  EXPECT_EQ(other.ask("lock a"), "409 Unavailable");
  EXPECT_EQ(other.ask("unlock a"), "403 not_yours");
  EXPECT_EQ(client.ask("unlock_all"), "200 OK");
  EXPECT_EQ(other.ask("lock a"), "200 Acquired");
  EXPECT_EQ(client.ask("quit"), "200 Hey, it was nice seeing you.");
  EXPECT_TRUE(client.is_closed());
}

TEST(ElockServe, WaitersGoInTheirOrderAndRequestsInARowOneAfterTheOther) {
  const ElockServer server;
  ElockClient holder(server.port());
  ElockClient first(server.port());
  ElockClient second(server.port());
  ASSERT_EQ(holder.ask("lock k"), "200 Acquired");
  first.say("lock k 30\necho done\nunlock k\n");
  ElockClient stats(server.port());
  second.say("echo here\nlock k 30\n");
  ASSERT_EQ(second.hear(), "200 [\"here\"]");
  EXPECT_EQ(stats.ask("lock k 1"), "409 Unavailable") << "after a second";
  ASSERT_EQ(holder.ask("unlock k"), "200 Unlocked");
  EXPECT_EQ(first.hear(), "200 Acquired");
  EXPECT_EQ(first.hear(), "200 [\"done\"]");
  EXPECT_EQ(first.hear(), "200 Unlocked");
  EXPECT_EQ(second.hear(), "200 Acquired");
}

// The original grants it to nobody, for the next 30 seconds.
TEST(ElockServe, WhoLeavesTheQueueIsOutOfIt) {
  const ElockServer server;
  ElockClient holder(server.port());
  ASSERT_EQ(holder.ask("lock k"), "200 Acquired");
  {
    ElockClient leaves(server.port());
    leaves.say("echo here\nlock k 30\n");
    ASSERT_EQ(leaves.hear(), "200 [\"here\"]");
  }
  ElockClient late(server.port());
  ASSERT_EQ(late.ask("lock k 1"), "409 Unavailable") << "it has timed out";
  ASSERT_EQ(holder.ask("unlock k"), "200 Unlocked");
  ElockClient next(server.port());
  EXPECT_EQ(next.ask("lock k"), "200 Acquired");
}

// The original frees it when the one who had it before has gone.
TEST(ElockServe, WhatWasHandedOverIsNotTheFormerHoldersAnyMore) {
  const ElockServer server;
  ElockClient next(server.port());
  {
    ElockClient former(server.port());
    ASSERT_EQ(former.ask("set_timeout 0"), "200 timeout set");
    ASSERT_EQ(former.ask("lock k"), "200 Acquired");
    next.say("echo here\nlock k 30\n");
    ASSERT_EQ(next.hear(), "200 [\"here\"]");
    ASSERT_EQ(former.ask("unlock k"), "200 Unlocked");
    ASSERT_EQ(next.hear(), "200 Acquired");
    ASSERT_EQ(former.ask("unlock_all"), "200 OK");
  }
  ElockClient other(server.port());
  EXPECT_EQ(other.ask("lock k 1"), "409 Unavailable");
  EXPECT_EQ(next.ask("unlock k"), "200 Unlocked") << "it is theirs still";
}

TEST(ElockServe, ASessionOutlivesItsConnectionForItsTimeoutAndMayComeAgain) {
  const ElockServer server;
  std::string id;
  {
    ElockClient client(server.port());
    ASSERT_EQ(client.ask("lock k"), "200 Acquired");
    id = client.ask("conn_id").substr(4);
    EXPECT_GT(id.size(), 10U) << "nobody guesses it";
    ElockClient thief(server.port());
    EXPECT_EQ(thief.ask("conn_id " + id), "403 cannot set conn id") << "it lives";
  }
  {
    ElockClient again(server.port());
    EXPECT_TRUE(eventually([&] { return again.ask("conn_id " + id) == "200 conn id set"; }));
    EXPECT_EQ(again.ask("lock k"), "200 Acquired") << "it is ours";
    ASSERT_EQ(again.ask("set_timeout 300"), "200 timeout set");
  }
  ElockClient other(server.port());
  EXPECT_EQ(other.ask("lock k"), "409 Unavailable");
  EXPECT_EQ(other.ask("lock k 5"), "200 Acquired");
}

TEST(ElockServe, HasLimitsAndListensWhereItWasTold) {
  const ElockServer server("clients=3,line=100,idle=2s");
  ElockClient one(server.port());
  ElockClient two(server.port());
  EXPECT_EQ(one.ask("lock k"), "200 Acquired");
  EXPECT_EQ(two.ask(std::string(200, 'x')), "400 Line too long");
  EXPECT_TRUE(two.is_closed());
  ElockClient idle(server.port());
  EXPECT_EQ(idle.ask("echo"), "200 []");
  ElockClient third(server.port());
  EXPECT_EQ(third.ask("echo"), "200 []");
  ElockClient fourth(server.port());
  EXPECT_EQ(fourth.hear(), "400 Too many clients");
  EXPECT_TRUE(idle.is_closed()) << "it had nothing to do here";
  EXPECT_EQ(one.ask("lock k"), "200 Acquired") << "who holds may be silent";
  char port[8];
  std::snprintf(port, sizeof port, ":%04X", static_cast<unsigned>(server.port()));
  EXPECT_THAT(slurp("/proc/net/tcp"),
              HasSubstr("0100007F" + std::string(port) + " 00000000:0000 0A"));
}

TEST(ElockMount, AndClientsByHandExcludeEachOther) {
  const ElockServer server;
  const Mount mount({}, source(server));
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
  const Mount mount({}, source(server));
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
  const Mount mount({}, source(server));
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
  const Mount mount({}, "elock://127.0.0.1:" + std::to_string(server.port()) + "?timeout=2s");
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
  const Mount mount({}, "elock://127.0.0.1:" + std::to_string(network.port()) + "?timeout=5s");
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

}  // namespace
}  // namespace lockfs::test
