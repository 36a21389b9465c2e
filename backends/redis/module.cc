// SPDX-License-Identifier: MIT
#include "backends/module.h"

#include <array>

#include "backends/redis/go_dlm_backend.h"
#include "backends/redis/redis_backend.h"
#include "backends/redis/redis_url.h"

namespace lockfs {
namespace {

Prepared prepare_redis(std::string_view scheme, std::string_view rest) {
  const auto url = redis::parse_url(scheme, rest);
  if (!url) return tl::make_unexpected(url.error());
  return [url = *url](EventLoop& loop) -> std::unique_ptr<LockBackend> {
    if (url.layout == redis::Layout::kGoDlm) return std::make_unique<GoDlmBackend>(loop, url);
    return std::make_unique<RedisBackend>(loop, url);
  };
}

constexpr auto kCheck = check_with<redis::parse_url>;
constexpr std::array kRows = {BackendRow{"redis", kCheck, prepare_redis},
                              BackendRow{"rediss", kCheck, prepare_redis},
                              BackendRow{"redis+unix", kCheck, prepare_redis}};

}  // namespace
}  // namespace lockfs

const lockfs::BackendModule lockfs_module = {LOCKFS_BUILD, lockfs::kRows};
