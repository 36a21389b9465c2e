// SPDX-License-Identifier: MIT
// `lockfs serve elock://` when many come at once, or one says more than is good for the others.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <memory>

#include "tests/support/elock_server.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using Clock = std::chrono::steady_clock;

// How much of a processor a process has used so far, in seconds.
double processor_time(pid_t pid) {
  const std::string stat = slurp("/proc/" + std::to_string(pid) + "/stat");
  long user = 0;
  long system = 0;
  std::sscanf(stat.c_str() + stat.rfind(')') + 2,
              "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system);
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

using Clients = std::vector<std::unique_ptr<ElockClient>>;

// So many connections; how many of them are served.
size_t crowd(Clients& clients, const ElockServer& server, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<ElockClient>(server.port()));
    clients.back()->say("echo\n");
  }
  size_t served = 0;
  for (const auto& client : clients) {
    if (client->hear() == "200 []") ++served;
  }
  return served;
}

TEST(ElockCrowd, TheServerTakesAsManyDescriptorsAsItMay) {
  const ElockServer server("", 40, 400);
  Clients clients;
  EXPECT_EQ(crowd(clients, server, 50), 50U);
}

TEST(ElockCrowd, ForWhomNoDescriptorIsLeftIsHungUpOnAndTheServerRests) {
  const ElockServer server("", 40, 40);
  Clients clients;
  const auto begin = Clock::now();
  const size_t served = crowd(clients, server, 50);
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5))
      << "who is not served is not left waiting";
  EXPECT_GT(served, 20U);
  EXPECT_LT(served, 40U);
  const double before = processor_time(server.pid());
  usleep(1000000);  // In which it has nothing to do.
  EXPECT_LT(processor_time(server.pid()) - before, 0.2);
  clients.clear();
  EXPECT_TRUE(eventually([&] { return crowd(clients, server, 1) == 1; })) << "there is room again";
}

// Says nothing but ends of lines, and takes what it is told, until it is killed.
int flood(int port) {
  const int fd = connect_to(port);
  const std::string lines(65536, '\n');
  std::array<char, 65536> answers{};
  for (;;) {
    pollfd ready{fd, POLLIN | POLLOUT, 0};
    poll(&ready, 1, -1);
    if ((ready.revents & POLLIN) != 0 && recv(fd, answers.data(), answers.size(), 0) <= 0) return 1;
    if ((ready.revents & POLLOUT) != 0) send(fd, lines.data(), lines.size(), MSG_DONTWAIT);
  }
}

TEST(ElockCrowd, BesideThoseWhoSayMuchTheOthersHaveTheirTurns) {
  const ElockServer server;
  ElockClient client(server.port());
  std::vector<std::unique_ptr<Child>> flooders;
  for (int i = 0; i < 8; ++i) {
    flooders.push_back(std::make_unique<Child>([&] { return flood(server.port()); }));
  }
  const auto begin = Clock::now();
  auto worst = Clock::duration::zero();
  while (Clock::now() - begin < std::chrono::seconds(3)) {
    const auto asked = Clock::now();
    ASSERT_EQ(client.ask("echo"), "200 []");
    worst = std::max(worst, Clock::now() - asked);
  }
  EXPECT_LT(worst, std::chrono::milliseconds(300));
  std::cout << std::chrono::duration_cast<std::chrono::microseconds>(worst).count()
            << " us for an echo at the worst\n";
}

// What was said in one piece is answered to the last line, though not in one turn.
TEST(ElockCrowd, NothingIsForgottenOfWhatIsSaidInARow) {
  const ElockServer server;
  ElockClient holder(server.port());
  ASSERT_EQ(holder.ask("lock k"), "200 Acquired");
  ElockClient client(server.port());
  constexpr int kLines = 30000;
  std::string text = "lock k 60\n";
  for (int i = 0; i < kLines; ++i) text += "echo\n";
  client.say(text + "echo end\n");
  ASSERT_EQ(holder.ask("echo"), "200 []");
  ASSERT_EQ(holder.ask("unlock k"), "200 Unlocked");
  EXPECT_EQ(client.hear(), "200 Acquired");
  for (int i = 0; i < kLines; ++i) ASSERT_EQ(client.hear(), "200 []") << i;
  EXPECT_EQ(client.hear(), "200 [\"end\"]");
}

TEST(ElockCrowd, OneClientHoldsSoManyLocksAndNoMore) {
  const ElockServer server("locks=3");
  ElockClient client(server.port());
  for (const char* key : {"a", "b", "c"}) {
    ASSERT_EQ(client.ask("lock " + std::string(key)), "200 Acquired");
  }
  EXPECT_EQ(client.ask("lock d"), "400 Too many locks");
  EXPECT_EQ(client.ask("lock d 5"), "400 Too many locks") << "nor does it wait for one";
  EXPECT_EQ(client.ask("lock c"), "200 Acquired") << "it has that one";
  EXPECT_EQ(client.ask("unlock a"), "200 Unlocked");
  EXPECT_EQ(client.ask("lock d"), "200 Acquired");
  ElockClient other(server.port());
  EXPECT_EQ(other.ask("lock e"), "200 Acquired");
}

TEST(ElockCrowd, OfWhoHeldNothingNothingStays) {
  const ElockServer server;
  for (int i = 0; i < 20; ++i) {
    ElockClient client(server.port());
    ASSERT_EQ(client.ask("set_timeout 3600000"), "200 timeout set");
    if (i == 0) {
      ASSERT_EQ(client.ask("lock k"), "200 Acquired");
    }
  }
  ElockClient client(server.port());
  EXPECT_TRUE(eventually([&] {
    EXPECT_EQ(client.ask("stats"), "200 STATS");
    std::string stats;
    for (std::string line; (line = client.hear()) != "END" && !line.empty();) stats += line + "\n";
    return stats == "STAT clients 1\nSTAT locks 1\nSTAT monitoring 1\nSTAT resumes 1\n";
  })) << "one session is left, with its lock";
}

}  // namespace
}  // namespace lockfs::test
