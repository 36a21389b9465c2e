// SPDX-License-Identifier: MIT
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>

namespace lockfs::test {
namespace {

int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

void at_once(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  const bool got = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                   getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  if (!got) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(port);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

Proxy::Proxy(int port, bool grpc) : target_(port), grpc_(grpc), wake_(eventfd(0, EFD_CLOEXEC)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("a proxy cannot listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

Proxy::~Proxy() {
  stop_ = true;
  eventfd_write(wake_, 1);
  thread_.join();
  for (Pair& pair : pairs_) reset(pair);
  close(listener_);
  close(wake_);
}

void Proxy::cut(bool refuse) {
  refuse_ = refuse;
  cut_ = true;
  eventfd_write(wake_, 1);
}

void Proxy::say(const std::string& text) {
  const std::lock_guard guard(mutex_);
  say_ += text;
  eventfd_write(wake_, 1);
}

void Proxy::lose(const std::string& text) {
  const std::lock_guard guard(mutex_);
  lose_ = text;
}

void Proxy::reset(Pair& pair) {
  for (Side* side : {&pair.client, &pair.server}) {
    shutdown(side->fd, SHUT_RDWR);  // Forked children have it as well.
    close(side->fd);
  }
}

void Proxy::accept_one() {
  Pair pair;
  pair.client.fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (pair.client.fd < 0) return;
  pair.server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(target_);
  ++accepted_;
  if (refuse_ ||
      connect(pair.server.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return reset(pair);
  }
  at_once(pair.client.fd);
  at_once(pair.server.fd);
  pairs_.push_back(std::move(pair));
}

void Proxy::take(Pair& pair, bool answers) {
  Side& from = answers ? pair.server : pair.client;
  Side& to = answers ? pair.client : pair.server;
  std::array<char, 65536> buffer{};
  const ssize_t n = recv(from.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n <= 0) {
    from.ended = true;
    return;
  }
  if (!answers) sent_ += static_cast<uint64_t>(n);
  if (answers && muted_) return;
  std::string bytes(buffer.data(), static_cast<size_t>(n));
  if (answers && grpc_) {
    const std::lock_guard guard(mutex_);
    int lost = 0;
    bytes = pair.messages.pass(bytes, lose_, lost);
    lost_ += lost;
  }
  to.to.push_back({now() + delay_, std::move(bytes)});
}

void Proxy::ask(Pair& pair) {
  const size_t before = pair.server.to.size();
  take(pair, false);
  if (pair.server.to.size() == before) return;
  if (pair.server.to.back().bytes.find("SUBSCRIBE") != std::string::npos) pair.subscribes = true;
}

bool Proxy::is_held(const Pair& pair, const Side& side) const {
  return parted_ || (held_ && pair.subscribes && &side == &pair.client);
}

void Proxy::give(Side& side) {
  while (!side.to.empty() && side.to.front().due <= now()) {
    const std::string& bytes = side.to.front().bytes;
    send(side.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    side.to.erase(side.to.begin());
  }
}

bool Proxy::is_over(const Pair& pair) const {
  return (pair.client.ended && pair.server.to.empty()) ||
         (pair.server.ended && pair.client.to.empty());
}

void Proxy::run() {
  while (!stop_) {
    std::vector<pollfd> fds = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
    int64_t next = now() + 1000;
    for (const Pair& pair : pairs_) {
      for (const Side* side : {&pair.client, &pair.server}) {
        const bool open = !parted_ && !side->ended;
        fds.push_back({side->fd, static_cast<short>(open ? POLLIN : 0), 0});
        if (!side->to.empty() && !is_held(pair, *side)) next = std::min(next, side->to.front().due);
      }
    }
    if (parted_ || held_) next = std::min(next, now() + 5);  // It is told by a flag that it ends.
    poll(fds.data(), fds.size(), static_cast<int>(std::clamp<int64_t>(next - now(), 0, 5)));
    if (fds[0].revents != 0) {
      eventfd_t count = 0;
      eventfd_read(wake_, &count);
    }
    std::string say;
    {
      const std::lock_guard guard(mutex_);
      say.swap(say_);
    }
    const bool cut = cut_.exchange(false);
    for (size_t i = 0; i < pairs_.size(); ++i) {
      Pair& pair = pairs_[i];
      if (!say.empty()) pair.client.to.push_back({now(), say});
      if (parted_) continue;
      const auto ready = [&](size_t at) { return (fds[2 + 2 * i + at].revents & POLLIN) != 0; };
      if (ready(0)) ask(pair);
      if (ready(1)) take(pair, true);
      if (!is_held(pair, pair.client)) give(pair.client);
      give(pair.server);
    }
    for (Pair& pair : pairs_) {
      if (cut || is_over(pair)) reset(pair);
    }
    std::erase_if(pairs_, [&](const Pair& pair) { return cut || is_over(pair); });
    if ((fds[1].revents & POLLIN) != 0) accept_one();
  }
}

}  // namespace lockfs::test
