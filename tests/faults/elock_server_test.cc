// SPDX-License-Identifier: MIT
// `lockfs serve elock://` as its clients meet it: the protocol word by word, sessions, limits, and
// what the original does wrong. The transcript is that of the original (dustin/elock on OTP 25),
// run beside it by hand, but for the ids and the last four lines.
#include "tests/support/elock_server.h"

#include <gmock/gmock.h>

#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;

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
  EXPECT_EQ(client.hear(), "STAT resumes 1") << "the original says no such thing, nor does it";
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

}  // namespace
}  // namespace lockfs::test
