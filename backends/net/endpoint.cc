// SPDX-License-Identifier: MIT
#include "backends/net/endpoint.h"

#include "core/words.h"

namespace lockfs::net {

std::string Endpoint::words() const {
  if (!socket.empty()) return socket;
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string parse_host(Endpoint& endpoint, std::string_view text, uint16_t default_port) {
  size_t colon = text.rfind(':');
  if (text.starts_with('[')) {  // An IPv6 address.
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return "']' is missing, as in [::1]:6379";
    endpoint.host = text.substr(1, end - 1);
    colon = end + 1 < text.size() ? end + 1 : std::string_view::npos;
    if (colon != std::string_view::npos && text[colon] != ':')
      return "behind ']' goes ':PORT', or nothing";
  } else {
    endpoint.host = text.substr(0, colon);
  }
  endpoint.port = default_port;
  if (colon != std::string_view::npos) {
    const auto port = parse_number(text.substr(colon + 1), 1, 65535);
    if (!port) return "the port " + port.error();
    endpoint.port = static_cast<uint16_t>(*port);
  }
  return endpoint.host.empty() ? "a host is missing" : "";
}

}  // namespace lockfs::net
