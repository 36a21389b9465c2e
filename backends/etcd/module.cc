// SPDX-License-Identifier: MIT
#include "backends/module.h"

#include <array>

#include "backends/etcd/etcd_backend.h"
#include "backends/etcd/etcd_url.h"

namespace lockfs {
namespace {

constexpr auto kCheck = check_with<etcd::parse_url>;
constexpr auto kPrepare = prepare_with<etcd::parse_url, EtcdBackend>;
constexpr std::array kRows = {BackendRow{"etcd", kCheck, kPrepare},
                              BackendRow{"etcds", kCheck, kPrepare}};

}  // namespace
}  // namespace lockfs

const lockfs::BackendModule lockfs_module = {LOCKFS_BUILD, lockfs::kRows};
