// SPDX-License-Identifier: MIT
#include "backends/net/listener.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lockfs::net {

Listener::Listener(EventLoop& loop, int fd, Accepted accepted)
    : loop_(loop), fd_(fd), accepted_(std::move(accepted)) {
  loop_.watch(fd_, [this] { return accept_one(); });
}

Listener::~Listener() {
  loop_.unwatch(fd_);
  close(fd_);
}

tl::expected<std::unique_ptr<Listener>, std::string> Listener::open(EventLoop& loop,
                                                                    const Endpoint& at,
                                                                    Accepted accepted) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(at.host.c_str(), std::to_string(at.port).c_str(), &hints, &found);
  if (error != 0) return tl::make_unexpected(at.words() + ": " + gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
    const std::string why = std::strerror(errno);
    close(fd);
    return tl::make_unexpected("cannot listen at " + at.words() + ": " + why);
  }
  return std::unique_ptr<Listener>(new Listener(loop, fd, std::move(accepted)));
}

bool Listener::accept_one() {
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return false;
  accepted_(fd);
  return true;
}

}  // namespace lockfs::net
