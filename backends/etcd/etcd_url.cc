// SPDX-License-Identifier: MIT
#include "backends/etcd/etcd_url.h"

#include <fmt/format.h>
#include <unistd.h>

#include "backends/key_values.h"
#include "backends/server_url.h"
#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs::etcd {
namespace {

constexpr auto kLongestLease = std::chrono::minutes(10);
constexpr uint16_t kPort = 2379;

// What is wrong, or nothing.
std::string set_members(Url& url, std::string_view place, bool tls) {
  take_login(place, url.user, url.password);
  for (;;) {
    const size_t comma = place.find(',');
    net::Endpoint member;
    std::string wrong = net::parse_host(member, place.substr(0, comma), kPort);
    if (!wrong.empty()) return wrong;
    if (tls) member.tls.emplace();
    url.members.push_back(member);
    if (comma == std::string_view::npos) return {};
    place.remove_prefix(comma + 1);
  }
}

std::string set_option(Url& url, const std::string& key, const std::string& value) {
  if (key == "lease") return set_lease(url.lease, value, kLongestLease, "10m");
  if (key == "password-file") return read_password(url.password, value);
  if (key == "prefix") {
    url.prefix = unquoted_value(value);
    return {};
  }
  const bool tls = url.members.front().tls.has_value();
  if (tls && (key == "ca" || key == "cert" || key == "key")) {
    if (access(value.c_str(), R_OK) != 0) return "cannot read it";
    for (net::Endpoint& member : url.members) {
      net::Tls& of = *member.tls;
      (key == "ca" ? of.ca : key == "cert" ? of.certificate : of.key) = value;
    }
    return {};
  }
  return "is unknown; known: lease, prefix, password-file, and of etcds: ca, cert, key";
}

}  // namespace

std::string Url::words() const {
  std::string out;
  for (const net::Endpoint& member : members) out += (out.empty() ? "" : ",") + member.words();
  return out;
}

tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest) {
  const auto fail = [&](const std::string& words) {
    return tl::make_unexpected(std::string(scheme) + ": " + words);
  };
  Url url;
  if (!rest.starts_with("//")) {
    return fail("takes //HOST:PORT,HOST:PORT, as etcd://10.0.0.1:2379,10.0.0.2:2379");
  }
  const UrlQuery query = split_query(rest.substr(2));
  const std::string wrong = set_members(url, query.name, scheme == "etcds");
  if (!wrong.empty()) return fail("//HOST:PORT: " + wrong);
  for (const auto& [key, value] : query.options) {
    const std::string no = set_option(url, key, value);
    if (!no.empty()) return fail(fmt::format("{}={}: {}", key, value, no));
  }
  if (url.user.empty() != url.password.empty())
    return fail("a user goes with a password: USER:PASSWORD@, or password-file=PATH");
  return url;
}

}  // namespace lockfs::etcd
