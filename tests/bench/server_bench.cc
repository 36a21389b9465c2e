// SPDX-License-Identifier: MIT
// Measures backends of small servers beside memory:, the floor, and what the server's own client
// does, in turn, with a server on the loopback:
//   server_bench LOCKFS NULL_FS elock|ldlm [ROUNDS [CYCLES]]
// LOCKFS_LDLM_SERVER and LDLM_PYTHON say where LDLM's server and its Python client are.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/bench/bench.h"

namespace lockfs::bench {
namespace {

constexpr int kHandOvers = 50;

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

// A server of our own; gone when this ends.
class Server {
 public:
  Server(const Words& words, int port) : pid_(start(words)) {
    for (int fd = -1; fd < 0; usleep(5000)) {
      fd = connect_to(port);
      if (fd >= 0) close(fd);
    }
  }
  ~Server() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  pid_t pid_ = -1;
};

// elock's own client is a socket.
class ElockSocket {
 public:
  explicit ElockSocket(int port) : fd_(connect_to(port)) {}
  ~ElockSocket() { close(fd_); }
  ElockSocket(const ElockSocket&) = delete;
  ElockSocket& operator=(const ElockSocket&) = delete;
  void cycle() const {
    const std::string name = new_name();
    ask("lock " + name + "\n");
    ask("unlock " + name + "\n");
  }

 private:
  void ask(const std::string& line) const {
    std::array<char, 256> answer{};
    if (write(fd_, line.data(), line.size()) < 0 || read(fd_, answer.data(), answer.size()) < 3 ||
        answer[0] != '2') {
      die("elock");
    }
  }
  int fd_ = -1;
};

int run(int argc, char** argv) {
  if (argc < 4) return 2;
  const std::string what = argv[3];
  const int rounds = argc > 4 ? std::atoi(argv[4]) : 7;
  const int count = argc > 5 ? std::atoi(argv[5]) : 1000;
  const int port = 20000 + getpid() % 20000;
  const std::string place = "127.0.0.1:" + std::to_string(port);
  const char* ldlm = getenv("LOCKFS_LDLM_SERVER");
  const char* python = getenv("LDLM_PYTHON");
  if (what != "elock" && (ldlm == nullptr || python == nullptr)) return 2;
  const Server server(what == "elock" ? Words{argv[1], "serve", "elock://" + place}
                                      : Words{ldlm, "--listen_address", place, "--ipc_socket_file",
                                              "/tmp/lockfs-bench-ldlm-" + std::to_string(port)},
                      port);
  const std::string url = what + "://" + place;
  const Served floor({argv[2]}, "");
  const Served memory({argv[1], "-f", "memory:"}, "/default");
  const Served one({argv[1], "-f", url}, "/default");
  const Served two({argv[1], "-f", url}, "/default");
  std::unique_ptr<ElockSocket> client;
  std::unique_ptr<Program> script;
  if (what == "elock") {
    client = std::make_unique<ElockSocket>(port);
  } else {
    script = std::make_unique<Program>(Words{"/usr/bin/env", std::string("PYTHONPATH=") + python,
                                             "python3", "tests/bench/ldlm_client.py", place});
  }
  std::printf("\n%s: beside its server on the loopback\n", what.c_str());
  fresh_beside(
      {floor.dir, memory.dir, one.dir}, "own client",
      [&] {
        if (script != nullptr) return script->measure("cycle", count);
        return per_cycle(count, [&] { client->cycle(); });
      },
      rounds, count);
  const std::array<std::string, 2> dirs = {one.dir, two.dir};
  std::printf("hand-over between two mounts, %d waiters: %.0f us\n", kHandOvers,
              crowd(dirs, kHandOvers));
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
