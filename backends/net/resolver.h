// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/net/endpoint.h"
#include "backends/outlet.h"

namespace lockfs::net {

/// How long a name may take to resolve: a resolver asks one name server after another.
constexpr auto kResolveTime = std::chrono::seconds(30);

/// Where connect(2) finds a server.
struct Address {
  std::vector<char> bytes;  ///< A sockaddr.
  int family = 0;

  /// "ipv4:1.2.3.4:80", "ipv6:[::1]:80": as gRPC names it.
  std::string target() const;
};

/// Whether it is an address already.
bool is_number(const std::string& host);

/// Calls `found` on the loop, not from within, with the server's addresses in the order in which
/// they are to be tried; or with none, and why, after kResolveTime at the latest. A name is
/// resolved on a thread.
void resolve(const std::shared_ptr<Outlet>& outlet, const Endpoint& server,
             std::function<void(std::vector<Address> addresses, const std::string& why)> found);

}  // namespace lockfs::net
