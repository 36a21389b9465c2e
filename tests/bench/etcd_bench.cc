// SPDX-License-Identifier: MIT
// Measures `etcd:` beside memory:, the floor, and what etcd's Go client does itself, in turn, with
// a server on the loopback whose data is in memory, so that nobody waits for a disk:
//   etcd_bench LOCKFS NULL_FS GO_CLIENT [ROUNDS [CYCLES]]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/bench/bench.h"

namespace lockfs::bench {
namespace {

constexpr int kHandOvers = 300;

// A server of our own, in a directory that goes with it.
struct Server {
  std::string directory = "/dev/shm/lockfs-bench-etcd-XXXXXX";
  int port = 20000 + getpid() % 20000;
  pid_t pid = -1;

  Server() {
    if (mkdtemp(directory.data()) == nullptr) die("mkdtemp");
    const std::string peer = "http://127.0.0.1:" + std::to_string(port + 1);
    const std::string client = "http://" + place();
    pid = start({"/usr/bin/etcd", "--data-dir", directory + "/data", "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
                 "--logger", "zap", "--log-outputs", directory + "/log"});
    while (metrics().find("\netcd_server_has_leader 1") == std::string::npos) usleep(20000);
  }
  ~Server() {
    kill(pid, SIGTERM);
    waitpid(pid, nullptr, 0);
    std::filesystem::remove_all(directory);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  std::string place() const { return "127.0.0.1:" + std::to_string(port); }
  std::string url() const { return "etcd://" + place(); }

  // How many transactions and lookups it has begun.
  double requests() const {
    double sum = 0;
    const std::string text = metrics();
    for (const std::string method : {"Txn", "Range"}) {
      const std::string key = "grpc_server_started_total{grpc_method=\"" + method + "\"";
      const size_t at = text.find("\n" + key);
      if (at != std::string::npos) sum += std::atof(text.c_str() + text.find("} ", at) + 2);
    }
    return sum;
  }
  std::string metrics() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    std::string out;
    const std::string ask = "GET /metrics HTTP/1.0\r\n\r\n";
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        write(fd, ask.data(), ask.size()) > 0) {
      std::array<char, 65536> text{};
      for (ssize_t n = 0; (n = read(fd, text.data(), text.size())) > 0;) {
        out.append(text.data(), static_cast<size_t>(n));
      }
    }
    close(fd);
    return out;
  }
};

int run(int argc, char** argv) {
  if (argc < 4) return 2;
  const int rounds = argc > 4 ? std::atoi(argv[4]) : 7;
  const int count = argc > 5 ? std::atoi(argv[5]) : 1000;
  const Server server;
  const Served floor({argv[2]}, "");
  const Served memory({argv[1], "-f", "memory:"}, "/default");
  const Served one({argv[1], "-f", server.url()}, "/default");
  const Served two({argv[1], "-f", server.url()}, "/default");
  Program client({argv[3], server.place()});
  std::printf("\netcd: beside its server on the loopback\n");
  fresh_beside(
      {floor.dir, memory.dir, one.dir}, "Go's mutex",
      [&] { return client.measure("cycle", count); }, rounds, count);
  const std::array<std::string, 2> dirs = {one.dir, two.dir};
  const double mounts = hand_over(
      [&](int i) { return turns_mount(dirs.at(static_cast<size_t>(i)) + "/turns", kHandOvers); });
  std::printf("hand-over between two mounts: %.0f us; between two of Go's mutexes: %.0f us\n",
              mounts, client.measure("turns", kHandOvers));
  for (const int many : {10, 100, 1000}) {
    const double before = server.requests();
    const double each = crowd(dirs, many);
    std::printf("%5d waiters of two mounts: %.2f requests and %.0f us a hand-over\n", many,
                (server.requests() - before) / many, each);
  }
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
