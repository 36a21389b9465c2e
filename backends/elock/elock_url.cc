// SPDX-License-Identifier: MIT
#include "backends/elock/elock_url.h"

#include <fmt/format.h>

#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs::elock {
namespace {

std::string set_duration(Duration& out, const std::string& value, Duration least) {
  const auto duration = parse_duration(value);
  if (!duration) return duration.error();
  if (*duration < least || *duration > std::chrono::hours(1)) return "takes 2s to 1h";
  out = *duration;
  return {};
}

std::string set_number(size_t& out, const std::string& value, uint64_t least) {
  const auto number = parse_number(value, least, 1000000);
  if (!number) return number.error();
  out = *number;
  return {};
}

std::string set_option(Url& url, const std::string& key, const std::string& value, bool serves) {
  if (!serves && key == "timeout") return set_duration(url.timeout, value, std::chrono::seconds(2));
  if (serves && key == "idle") return set_duration(url.limits.idle, value, std::chrono::seconds(2));
  if (serves && key == "clients") return set_number(url.limits.clients, value, 1);
  if (serves && key == "locks") return set_number(url.limits.locks, value, 1);
  if (serves && key == "line") return set_number(url.limits.line, value, 64);
  return serves ? "is unknown; known: clients=N, idle=DUR, line=N, locks=N"
                : "is unknown; known: timeout=DUR";
}

}  // namespace

tl::expected<Url, std::string> parse_url(std::string_view rest, bool serves) {
  Url url;
  if (!rest.starts_with("//")) {
    return tl::make_unexpected("elock: takes //HOST:PORT, as elock://locks.example:11400");
  }
  const UrlQuery query = split_query(rest.substr(2));
  const bool no_host = query.name.empty() || query.name.front() == ':';
  const std::string wrong =
      net::parse_host(url.server, (no_host ? "127.0.0.1" : "") + std::string(query.name), kPort);
  if (!wrong.empty()) return tl::make_unexpected("elock: //HOST:PORT: " + wrong);
  for (const auto& [key, value] : query.options) {
    const std::string no = set_option(url, key, value, serves);
    if (!no.empty()) return tl::make_unexpected(fmt::format("elock: {}={}: {}", key, value, no));
  }
  return url;
}

}  // namespace lockfs::elock
