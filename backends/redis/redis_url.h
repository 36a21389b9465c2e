// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "backends/net/endpoint.h"
#include "core/timer_queue.h"

namespace lockfs::redis {

/// How the locks lie in the database.
enum class Layout {
  kLockfs,  ///< Ours: locks.lua.
  kGoDlm,   ///< A key each, as SET NX PX makes it; so does github.com/MEDIGO/go-dlm.
};

/// What a URL says of a Redis server, the scheme apart:
///   redis://[USER[:PASSWORD]@]HOST[:PORT][/DB][?OPTIONS], rediss:// by TLS, redis+unix:///PATH
struct Url {
  net::Endpoint server;
  std::string user;
  std::string password;
  unsigned database = 0;
  Layout layout = Layout::kLockfs;
  std::string prefix = "lockfs";  ///< Of all keys; of go-dlm's, its namespace.
  Duration lease = std::chrono::seconds(10);
};

/// The AUTH command of a URL; empty where it names no password.
std::vector<std::string> login_of(const Url& url);

/// Of `scheme` (redis, rediss, redis+unix) and what stands behind its colon; else what is wrong.
/// Reads the password where `password-file` tells.
tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest);

}  // namespace lockfs::redis
