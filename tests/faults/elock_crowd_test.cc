// SPDX-License-Identifier: MIT
// `lockfs serve elock://` when many come at once, or one says more than is good for the others.
#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "tests/support/elock_server.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

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
  const auto begin = std::chrono::steady_clock::now();
  const size_t served = crowd(clients, server, 50);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5))
      << "who is not served is not left waiting";
  EXPECT_GT(served, 20U);
  EXPECT_LT(served, 40U);
  const double before = processor_time(server.pid());
  usleep(1000000);  // In which it has nothing to do.
  EXPECT_LT(processor_time(server.pid()) - before, 0.2);
  clients.clear();
  EXPECT_TRUE(eventually([&] { return crowd(clients, server, 1) == 1; })) << "there is room again";
}

}  // namespace
}  // namespace lockfs::test
