// SPDX-License-Identifier: MIT
#include "backends/module.h"

#include <array>

#include "backends/elock/elock_backend.h"
#include "backends/elock/elock_server.h"
#include "backends/elock/elock_url.h"

namespace lockfs {
namespace {

auto parse(std::string_view /*scheme*/, std::string_view rest) {
  return elock::parse_url(rest, false);
}

class ElockService final : public Service {
 public:
  ElockService(std::string place, std::unique_ptr<elock::Server> server)
      : place_(std::move(place)), server_(std::move(server)) {}
  std::string place() const override { return place_; }

 private:
  std::string place_;
  std::unique_ptr<elock::Server> server_;
};

Served serve(std::string_view rest, EventLoop& loop) {
  const auto url = elock::parse_url(rest, true);
  if (!url) return tl::make_unexpected(url.error());
  auto server = elock::Server::open(loop, url->server, url->limits);
  if (!server) return tl::make_unexpected(server.error());
  return std::make_unique<ElockService>(url->server.words(), std::move(*server));
}

constexpr std::array kRows = {
    BackendRow{"elock", check_with<parse>, prepare_with<parse, ElockBackend>}};

}  // namespace
}  // namespace lockfs

const lockfs::BackendModule lockfs_module = {LOCKFS_BUILD, lockfs::kRows, lockfs::serve};
