// SPDX-License-Identifier: MIT
// A server's name that takes longer to resolve than a server may take to answer, as on a host whose
// first name server is gone; and one with an address too many.
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/faults/remote.h"
#include "tests/support/mount.h"
#include "tests/support/networks.h"

namespace lockfs::test {
namespace {

// Answers all who ask for names, that they are 127.0.0.1, after four seconds; until it is killed.
int slow_names() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(53);
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&place), sizeof place) != 0) return 1;
  for (;;) {
    std::array<char, 512> bytes{};
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const ssize_t n =
        recvfrom(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n < 17) continue;
    std::string answer(bytes.data(), static_cast<size_t>(n));
    const size_t end = answer.find('\0', 12) + 5;  // Of the question: a name, its type and class.
    const bool numbers = answer.at(end - 3) == 1;  // Of IPv4.
    answer.resize(end);
    answer.replace(2, 10, std::string("\x81\x80\0\1\0\0\0\0\0\0", 10));
    answer[7] = numbers ? 1 : 0;
    if (numbers) answer += std::string("\xC0\x0C\0\1\0\1\0\0\0\x3C\0\4\x7F\0\0\1", 16);
    if (fork() == 0) {
      usleep(4000000);
      sendto(fd, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
      _exit(0);
    }
  }
}

void bind_file(const std::string& path, const std::string& text) {
  const std::string file = "/tmp/lockfs-names-" + std::to_string(getpid());
  std::ofstream(file) << text;
  const bool bound = mount(file.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0;
  unlink(file.c_str());
  if (!bound) throw std::runtime_error("cannot bind " + path);
}

// In a network and with names of its own, a mount of a server of that name takes a lock in the end.
int locks_by_a_name(const std::string& remote) {
  const bool go_dlm = remote == "go_dlm";
  const auto server = make_remote(go_dlm ? "redis" : remote);
  std::string source = server->source(server->port());
  source.replace(source.find("127.0.0.1"), sizeof "127.0.0.1" - 1, "locks.example.test");
  const Mount far({}, source + (go_dlm ? "&layout=go-dlm" : ""));
  const auto locks = [&] {
    const int fd = open(far.lock("x").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) close(fd);
    return fd >= 0;
  };
  if (eventually(locks, 20)) return 0;
  std::cerr << far.log();
  return 3;
}

int apart(const std::function<int()>& what) {
  if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) return 1;
  mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  if (system("ip link set lo up") != 0) return 2;
  return what();
}

class Names : public testing::TestWithParam<std::string> {
 public:
  static std::vector<std::string> all() {
    std::vector<std::string> names = remote_names();
    if (std::find(names.begin(), names.end(), "redis") != names.end()) names.emplace_back("go_dlm");
    return names;
  }
};
INSTANTIATE_TEST_SUITE_P(Servers, Names, testing::ValuesIn(Names::all()),
                         [](const auto& server) { return server.param; });

TEST_P(Names, MayTakeLongToResolve) {
  if (!Networks::is_here()) GTEST_SKIP() << "no network namespaces";
  Child child([] {
    return apart([] {
      bind_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:10\n");
      const Child names(slow_names);
      return locks_by_a_name(GetParam());
    });
  });
  EXPECT_EQ(end_of(child), 0);
}

TEST_P(Names, MayHaveAnAddressAtWhichNobodyAnswers) {
  if (!Networks::is_here()) GTEST_SKIP() << "no network namespaces";
  Child child([] {
    return apart([] {
      if (system("ip link add dark type veth peer name hole && ip addr add 10.9.0.1/24 dev dark && "
                 "ip link set dark up && ip link set hole up && "
                 "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev dark") != 0) {
        return 2;
      }
      bind_file("/etc/hosts", "10.9.0.2 locks.example.test\n127.0.0.1 locks.example.test\n");
      bind_file("/etc/gai.conf", "precedence ::ffff:10.9.0.0/120 100\n");  // It comes first.
      return locks_by_a_name(GetParam());
    });
  });
  EXPECT_EQ(end_of(child), 0);
}

}  // namespace
}  // namespace lockfs::test
