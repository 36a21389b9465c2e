// SPDX-License-Identifier: MIT
// A cluster that is out of reach for a while: who is told so, and who just waits on.
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>

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
  static int watchers(const EtcdServer& server) {
    const int fd = connect_to(server.port());
    EXPECT_EQ(write_command(fd, "GET /metrics HTTP/1.0\r\n\r\n"), 0);
    std::string out;
    std::array<char, 65536> text{};
    for (ssize_t n = 0; (n = read(fd, text.data(), text.size())) > 0;) {
      out.append(text.data(), static_cast<size_t>(n));
    }
    close(fd);
    const std::string key = "\netcd_debugging_mvcc_watcher_total ";
    const size_t at = out.find(key);
    return at == std::string::npos ? -1 : std::atoi(out.c_str() + at + key.size());
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

// As etcd 3.4 is, some seconds long, when the leader that was to confirm a read has gone: the third
// member is asked before the lease ends.
TEST_F(EtcdOutages, ThatTheNextMemberHangsTakesNothingFromAHolder) {
  const EtcdServer server;
  Proxy first(server.port());
  Proxy next(server.port());
  next.part(true);
  const auto host = [](const Proxy& at) { return "127.0.0.1:" + std::to_string(at.port()); };
  const Mount mount(
      {}, "etcd://" + host(first) + "," + host(next) + "," + server.endpoints() + "?lease=6s");
  const int held = open_lock(mount, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  first.part(true);
  ASSERT_TRUE(eventually([&] { return next.accepted() > 0; }));
  EXPECT_TRUE(works(mount));
  EXPECT_FALSE(is_lost(held)) << mount.log();
}

// Its keys go as it goes, and nothing of it is asked for again after an outage.
TEST_F(EtcdOutages, ALockspaceThatWasLeftIsNotWatchedAgain) {
  EtcdServer server;
  const Mount mount({}, source(server, "?lease=10s"));
  for (int i = 0; i < 20; ++i) {
    const std::string space = mount.path() + "/left" + std::to_string(i);
    ASSERT_EQ(mkdir(space.c_str(), 0777), 0);
    close(open((space + "/lock").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    ASSERT_TRUE(eventually([&] { return rmdir(space.c_str()) == 0; }));
  }
  ASSERT_TRUE(eventually([&] { return server.ctl("get --prefix --keys-only left").empty(); }));
  server.kill();
  server.start();
  ASSERT_TRUE(works(mount));
  EXPECT_EQ(watchers(server), 2) << "of default, and of its pins";
}

}  // namespace
}  // namespace lockfs::test
