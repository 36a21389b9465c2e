// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "backends/elock/elock_server.h"
#include "backends/net/endpoint.h"

namespace lockfs::elock {

/// What elock://[HOST][:PORT][?OPTIONS] says; without a host it is the loopback.
struct Url {
  net::Endpoint server;
  Duration timeout = std::chrono::seconds(30);  ///< Of a client: what set_timeout asks for.
  Limits limits;                                ///< Of a server.
};

/// Of what stands behind "elock:": of a client's, or with `serves` of a server's. Else what is
/// wrong.
tl::expected<Url, std::string> parse_url(std::string_view rest, bool serves);

}  // namespace lockfs::elock
