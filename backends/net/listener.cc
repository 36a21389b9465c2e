// SPDX-License-Identifier: MIT
#include "backends/net/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace lockfs::net {
namespace {

constexpr auto kRest = std::chrono::milliseconds(100);

}  // namespace

Listener::Listener(EventLoop& loop, int fd, Accepted accepted)
    : loop_(loop), fd_(fd), accepted_(std::move(accepted)) {
  watch();
}

Listener::~Listener() {
  loop_.timers.cancel(resting_);
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

void Listener::watch() {
  loop_.watch(fd_, [this] { return accept_one(); });
}

// Who is not accepted stays, and the loop would be told of him for ever.
bool Listener::accept_one() {
  spare_.take();
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    accepted_(fd);
    return true;
  }
  const bool nobody = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
  if (!nobody && !hang_up_on_one()) rest();
  return false;
}

bool Listener::hang_up_on_one() {
  if (!spare_.give()) return false;
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) close(fd);
  spare_.take();
  return fd >= 0;
}

void Listener::rest() {
  loop_.unwatch(fd_);
  resting_ = loop_.timers.schedule(loop_.timers.now() + kRest, [this] { watch(); });
}

}  // namespace lockfs::net
