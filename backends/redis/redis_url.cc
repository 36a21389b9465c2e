// SPDX-License-Identifier: MIT
#include "backends/redis/redis_url.h"

#include <fmt/format.h>

#include "backends/key_values.h"
#include "backends/server_url.h"
#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs::redis {
namespace {

constexpr auto kShortestLease = std::chrono::milliseconds(500);
constexpr auto kLongestLease = std::chrono::minutes(10);
constexpr uint16_t kPort = 6379;
constexpr size_t kLongestSocket = 107;

// What is wrong, or nothing.
std::string set_server(Url& url, std::string_view place) {
  take_login(place, url.user, url.password);
  if (const size_t slash = place.find('/'); slash != std::string_view::npos) {
    const std::string_view number = place.substr(slash + 1);
    const auto database = parse_number(number, 0, 1000000);
    if (!number.empty() && !database) return "the number of a database: " + database.error();
    url.database = number.empty() ? 0 : static_cast<unsigned>(*database);
    place = place.substr(0, slash);
  }
  return net::parse_host(url.server, place, kPort);
}

std::string set_lease(Url& url, std::string_view value) {
  const auto lease = parse_duration(value);
  if (!lease) return lease.error();
  if (*lease < kShortestLease || *lease > kLongestLease) return "takes 500ms to 10m";
  url.lease = *lease;
  return {};
}

std::string set_option(Url& url, const std::string& key, const std::string& value) {
  if (key == "lease") return set_lease(url, value);
  if (key == "password-file") return read_password(url.password, value);
  if (key == "prefix") {
    url.prefix = unquoted_value(value);
    return {};
  }
  if (key == "layout") {
    if (value != "go-dlm" && value != "lockfs") return "takes lockfs or go-dlm";
    url.layout = value == "go-dlm" ? Layout::kGoDlm : Layout::kLockfs;
    return {};
  }
  if (key == "db") {
    const auto number = parse_number(value, 0, 1000000);
    if (!number) return number.error();
    url.database = static_cast<unsigned>(*number);
    return {};
  }
  if (url.server.tls && (key == "ca" || key == "cert" || key == "key" || key == "verify")) {
    net::Tls& tls = *url.server.tls;
    if (key == "verify") {
      if (value != "no" && value != "yes") return "takes yes or no";
      tls.verify = value == "yes";
      return {};
    }
    (key == "ca" ? tls.ca : key == "cert" ? tls.certificate : tls.key) = value;
    return {};
  }
  return "is unknown; known: lease, prefix, layout, db, password-file, and of rediss: ca, cert, "
         "key, verify";
}

}  // namespace

std::vector<std::string> login_of(const Url& url) {
  if (url.password.empty()) return {};
  if (url.user.empty()) return {"AUTH", url.password};
  return {"AUTH", url.user, url.password};
}

tl::expected<Url, std::string> parse_url(std::string_view scheme, std::string_view rest) {
  const auto fail = [&](const std::string& words) {
    return tl::make_unexpected(std::string(scheme) + ": " + words);
  };
  Url url;
  if (!rest.starts_with("//")) return fail("takes //HOST:PORT/DB, as redis://localhost:6379/0");
  const UrlQuery query = split_query(rest.substr(2));
  if (scheme == "redis+unix") {
    if (!query.name.starts_with('/') || query.name.size() > kLongestSocket) {
      return fail("takes the path of a socket, as redis+unix:///run/redis/redis.sock");
    }
    url.server.socket = query.name;
  } else {
    if (scheme == "rediss") url.server.tls.emplace();
    const std::string wrong = set_server(url, query.name);
    if (!wrong.empty()) return fail("//HOST:PORT/DB: " + wrong);
  }
  const auto layout = query.options.find("layout");
  if (layout != query.options.end() && layout->second == "go-dlm") url.prefix.clear();
  for (const auto& [key, value] : query.options) {
    const std::string wrong = set_option(url, key, value);
    if (!wrong.empty()) return fail(fmt::format("{}={}: {}", key, value, wrong));
  }
  if (!url.user.empty() && url.password.empty())
    return fail("a user, but no password: USER:PASSWORD@, or password-file=PATH");
  return url;
}

}  // namespace lockfs::redis
