// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lockfs::net {

/// How a server proves who it is, and how we do.
struct Tls {
  std::string ca;           ///< File of certificates to trust; "": the host's own.
  std::string certificate;  ///< Ours, a file; "": none.
  std::string key;          ///< Its key, a file.
  bool verify = true;       ///< The server's certificate and its name.

  bool operator==(const Tls&) const = default;
};

/// Where a server is.
struct Endpoint {
  std::string host;
  uint16_t port = 0;
  std::string socket;  ///< Path of a unix socket, in place of host and port.
  std::optional<Tls> tls;

  /// "HOST:PORT", or the path.
  std::string words() const;
  bool operator==(const Endpoint&) const = default;
};

/// Reads "HOST", "HOST:PORT" or "[ADDRESS]:PORT" into host and port; what is wrong, or "".
std::string parse_host(Endpoint& endpoint, std::string_view text, uint16_t default_port);

}  // namespace lockfs::net
