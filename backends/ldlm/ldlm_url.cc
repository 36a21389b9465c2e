// SPDX-License-Identifier: MIT
#include "backends/ldlm/ldlm_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "backends/key_values.h"
#include "backends/server_url.h"
#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs::ldlm {
namespace {

constexpr uint16_t kPort = 3144;
// A server that hears nothing looks after a minute whether the connection lives, and frees what it
// has if not: before that we have to know.
constexpr auto kLongestLease = std::chrono::minutes(1);

std::string set_file(std::string& out, const std::string& path) {
  if (!std::ifstream(path)) return "cannot read it";
  out = path;
  return {};
}

std::string set_option(Url& url, const std::string& key, const std::string& value) {
  if (key == "lease") return set_lease(url.lease, value, kLongestLease, "1m");
  if (key == "password-file") return read_password(url.password, value);
  if (url.server.tls) {
    if (key == "ca") return set_file(url.server.tls->ca, value);
    if (key == "cert") return set_file(url.server.tls->certificate, value);
    if (key == "key") return set_file(url.server.tls->key, value);
  }
  return "is unknown; known: lease=DUR, password-file=FILE, and of ldlms: ca, cert, key";
}

// What is wrong, or nothing.
std::string set_server(Url& url, std::string_view place) {
  if (const size_t at = place.rfind('@'); at != std::string_view::npos) {
    if (place.front() != ':') return "a server has no users, but a password: //:PASSWORD@HOST";
    url.password = unquoted_value(place.substr(1, at - 1));
    place.remove_prefix(at + 1);
  }
  if (place.find('/') != std::string_view::npos) return "takes no path";
  return net::parse_host(url.server, place, kPort);
}

// It travels as a header does, and gRPC ends a process that sends another one.
bool is_header(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest) {
  const auto fail = [&](const std::string& words) {
    return tl::make_unexpected(std::string(scheme) + ": " + words);
  };
  Url url;
  if (scheme == "ldlms") url.server.tls.emplace();
  if (!rest.starts_with("//")) return fail("takes //HOST:PORT, as ldlm://locks.example:3144");
  const UrlQuery query = split_query(rest.substr(2));
  const std::string wrong = set_server(url, query.name);
  if (!wrong.empty()) return fail("//HOST:PORT: " + wrong);
  for (const auto& [key, value] : query.options) {
    const std::string no = set_option(url, key, value);
    if (!no.empty()) return fail(fmt::format("{}={}: {}", key, value, no));
  }
  if (!is_header(url.password)) return fail("a password takes printable ASCII characters only");
  if (url.server.tls && url.server.tls->certificate.empty() != url.server.tls->key.empty()) {
    return fail("cert and key go together");
  }
  return url;
}

}  // namespace lockfs::ldlm
