// SPDX-License-Identifier: MIT
#include "backends/redis/info.h"

#include <fmt/format.h>

namespace lockfs::redis {

std::string info_value(std::string_view info, std::string_view key) {
  const std::string wanted = "\n" + std::string(key) + ":";
  const size_t at = info.find(wanted);
  if (at == std::string_view::npos) return {};
  info.remove_prefix(at + wanted.size());
  return std::string(info.substr(0, info.find_first_of("\r\n")));
}

// A policy of volatile-* takes only keys that have a time to live.
std::string eviction(std::string_view info, bool expiring) {
  const std::string most = info_value(info, "maxmemory");
  const std::string policy = info_value(info, "maxmemory_policy");
  if (most.empty() || most == "0" || policy.empty() || policy == "noeviction") return {};
  if (!expiring && policy.starts_with("volatile-")) return {};
  return fmt::format("its maxmemory-policy is {}, which throws locks away: set noeviction{}",
                     policy, expiring ? "" : ", or one of volatile-*");
}

}  // namespace lockfs::redis
