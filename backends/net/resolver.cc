// SPDX-License-Identifier: MIT
#include "backends/net/resolver.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <utility>

#include "backends/worker_thread.h"

namespace lockfs::net {
namespace {

struct Found {
  std::vector<Address> addresses;
  std::string why;
};

Found look_up(const Endpoint& server) {
  Found out;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found);
  if (error != 0) out.why = gai_strerror(error);
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    const auto* bytes = reinterpret_cast<const char*>(a->ai_addr);
    out.addresses.push_back({{bytes, bytes + a->ai_addrlen}, a->ai_family});
  }
  if (found != nullptr) freeaddrinfo(found);
  return out;
}

Address address_of(const std::string& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* bytes = reinterpret_cast<const char*>(&address);
  return {{bytes, bytes + sizeof address}, AF_UNIX};
}

}  // namespace

bool is_number(const std::string& host) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

std::string Address::target() const {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getnameinfo(reinterpret_cast<const sockaddr*>(bytes.data()),
                  static_cast<socklen_t>(bytes.size()), host.data(), host.size(), port.data(),
                  port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {};
  }
  if (family != AF_INET6) return fmt::format("ipv4:{}:{}", host.data(), port.data());
  std::string text = host.data();
  if (const size_t zone = text.find('%'); zone != std::string::npos) text.insert(zone + 1, "25");
  return fmt::format("ipv6:[{}]:{}", text, port.data());
}

void resolve(const std::shared_ptr<Outlet>& outlet, const Endpoint& server,
             std::function<void(std::vector<Address> addresses, const std::string& why)> found) {
  // Whoever comes first, the thread or the time, takes it.
  const auto waiting = std::make_shared<decltype(found)>(std::move(found));
  const auto tell = [waiting](const Found& what) {
    if (const auto once = std::exchange(*waiting, nullptr)) once(what.addresses, what.why);
  };
  if (!server.socket.empty()) {
    return outlet->post([tell, server] { tell({{address_of(server.socket)}, {}}); });
  }
  if (is_number(server.host)) return outlet->post([tell, what = look_up(server)] { tell(what); });
  outlet->after(kResolveTime, [tell] { tell({{}, "nobody tells its address"}); });
  const bool runs = detached_thread("resolve " + server.host, [outlet, server, tell] {
    outlet->post([tell, what = look_up(server)] { tell(what); });
  });
  if (!runs) outlet->post([tell] { tell({{}, "there is no thread to resolve its name"}); });
}

}  // namespace lockfs::net
