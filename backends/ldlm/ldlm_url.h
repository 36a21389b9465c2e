// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "backends/net/endpoint.h"
#include "core/timer_queue.h"

namespace lockfs::ldlm {

/// What a URL says of an LDLM server, the scheme apart:
///   ldlm://[:PASSWORD@]HOST[:PORT][?OPTIONS], ldlms:// by TLS
struct Url {
  net::Endpoint server;
  std::string password;
  Duration lease = std::chrono::seconds(10);  ///< Whole seconds.
};

/// Of `scheme` (ldlm, ldlms) and what stands behind its colon; else what is wrong. Reads the
/// password where `password-file` tells.
tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest);

}  // namespace lockfs::ldlm
