// SPDX-License-Identifier: MIT
#include "tests/support/elock_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include "tests/support/proxy.h"

namespace lockfs::test {
ElockServer::ElockServer(std::string options, rlim_t descriptors, rlim_t most)
    : options_(std::move(options)), descriptors_{descriptors, most}, port_(free_port()) {
  start();
}

void ElockServer::kill() {
  process_->signal(SIGKILL);
  process_->wait();
}

void ElockServer::start() {
  const std::string url =
      "elock://127.0.0.1:" + std::to_string(port_) + (options_.empty() ? "" : "?" + options_);
  process_ = std::make_unique<Child>([&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (descriptors_.rlim_max != 0) setrlimit(RLIMIT_NOFILE, &descriptors_);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 2);
    execl(lockfs_binary().c_str(), "lockfs", "serve", url.c_str(), nullptr);
    return 127;
  });
  const auto listens = [this] {
    const int fd = connect_to(port_);
    if (fd >= 0) close(fd);
    return fd >= 0;
  };
  if (!eventually(listens)) throw std::runtime_error("lockfs serve does not listen");
}

ElockClient::ElockClient(int port) : fd_(connect_to(port)) {
  if (fd_ < 0) throw std::runtime_error("cannot connect");
}

ElockClient::~ElockClient() { close(fd_); }

void ElockClient::say(const std::string& text) const {
  send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
}

std::string ElockClient::hear() {
  for (;;) {
    if (const size_t end = input_.find("\r\n"); end != std::string::npos) {
      const std::string line = input_.substr(0, end);
      input_.erase(0, end + 2);
      return line;
    }
    pollfd ready{fd_, POLLIN, 0};
    std::array<char, 4096> buffer{};
    if (poll(&ready, 1, 10000) != 1) return {};
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    if (n <= 0) return {};
    input_.append(buffer.data(), static_cast<size_t>(n));
  }
}

bool ElockClient::is_closed() {
  char byte = 0;
  pollfd ready{fd_, POLLIN, 0};
  return poll(&ready, 1, 10000) == 1 && recv(fd_, &byte, 1, MSG_PEEK) <= 0;
}

}  // namespace lockfs::test
