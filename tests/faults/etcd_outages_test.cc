// SPDX-License-Identifier: MIT
// A cluster that is out of reach for a while: who is told so, and who just waits on.
#include <csignal>
#include <functional>

#include "tests/contract/witness.h"
#include "tests/faults/etcd_test.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using Clock = std::chrono::steady_clock;

class EtcdOutages : public Etcd {
 protected:
  static size_t keys(const EtcdServer& server, const std::string& name) {
    const std::string all = server.ctl("get --prefix --keys-only default/" + name + "/");
    return static_cast<size_t>(std::count(all.begin(), all.end(), '/')) / 2;
  }
};

// Two seconds of silence, and one for the next member; not the eighteen of the lease.
TEST_F(EtcdOutages, WhateverIsNewIsAnsweredSoon) {
  const EtcdServer server;
  const Mount mount({}, source(server, "?lease=20s"));
  const auto fd = [&](const std::string& name) { return open_lock(mount, name); };
  const int again = fd("again");
  const int held = fd("hand");
  const int next = fd("hand");
  const int up = fd("up");
  for (const int holds : {again, held}) ASSERT_EQ(write_command(holds, "EX"), 0);
  ASSERT_EQ(write_command(up, "PR"), 0);
  Child hand([&] { return write_command(next, "EX"); });
  ASSERT_TRUE(eventually([&] { return waiters(mount, "hand") == 1; }));
  server.signal(SIGSTOP);
  int code = 0;
  server.ctl("get x --command-timeout=300ms >/dev/null 2>&1", &code);
  ASSERT_NE(code, 0);
  const auto begin = Clock::now();
  for (const int holds : {again, held}) ASSERT_EQ(write_command(holds, "UN"), 0);
  Child fresh([&] { return write_command(fd("fresh"), "EX"); });
  Child anew([&] { return write_command(again, "EX"); });
  Child upgrade([&] { return write_command(up, "EX"); });
  for (Child* child : {&fresh, &anew, &upgrade, &hand}) {
    EXPECT_EQ(child->wait(), EHOSTUNREACH);
    EXPECT_LT(since(begin), 5);
  }
  server.signal(SIGCONT);
  EXPECT_TRUE(works(mount));
  EXPECT_FALSE(is_lost(up));
}

// Its key is made, and says all that is to be said; only that is not known when the connection
// ends.
TEST_F(EtcdOutages, WhoIsInTheQueueStaysThereThoughTheAnswerWasLost) {
  const EtcdServer server;
  Proxy network(server.port());
  const Mount other({}, source(server));
  const Mount mount({}, "etcd://127.0.0.1:" + std::to_string(network.port()) + "," +
                            server.endpoints() + "?lease=10s");
  const int held = open_lock(mount, "place");
  ASSERT_EQ(write_command(held, "EX"), 0);
  const int theirs = open_lock(other, "place");
  Child their_turn([&] { return write_command(theirs, "EX timeout=20s"); });
  ASSERT_TRUE(eventually([&] { return waiters(mount, "place") == 1; }));
  const int waits = open_lock(mount, "place");
  Child waiter([&] { return write_command(waits, "EX timeout=20s"); });
  ASSERT_TRUE(eventually([&] { return waiters(mount, "place") == 2; }));
  network.slow(300);
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(their_turn.wait(), 0);
  ASSERT_TRUE(eventually([&] { return keys(server, "place") == 2; }));
  network.cut(true);
  ASSERT_TRUE(works(mount));
  // So long nobody would wait for a cluster.
  ASSERT_EQ(exclusive(other, "elsewhere"), 0);
  EXPECT_EQ(write_command(open_lock(mount, "elsewhere"), "EX timeout=1500ms"), ETIMEDOUT);
  EXPECT_EQ(waiters(other, "place"), 1U);
  ASSERT_EQ(write_command(theirs, "UN"), 0);
  EXPECT_EQ(waiter.wait(), 0);
}

}  // namespace
}  // namespace lockfs::test
