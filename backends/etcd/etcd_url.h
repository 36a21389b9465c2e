// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "backends/net/endpoint.h"
#include "core/timer_queue.h"

namespace lockfs::etcd {

/// What a URL says of an etcd cluster, the scheme apart; etcds:// is by TLS:
///   etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][?OPTIONS]
struct Url {
  std::vector<net::Endpoint> members;
  std::string user;
  std::string password;
  std::string prefix;  ///< Of all keys.
  Duration lease = std::chrono::seconds(10);

  /// "HOST:PORT,HOST:PORT".
  std::string words() const;
};

/// Of `scheme` (etcd, etcds) and what stands behind its colon; else what is wrong. Reads the
/// password where `password-file` tells.
tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest);

}  // namespace lockfs::etcd
