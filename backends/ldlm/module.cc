// SPDX-License-Identifier: MIT
#include "backends/module.h"

#include <array>

#include "backends/ldlm/ldlm_backend.h"
#include "backends/ldlm/ldlm_url.h"

namespace lockfs {
namespace {

constexpr auto kCheck = check_with<ldlm::parse_url>;
constexpr auto kPrepare = prepare_with<ldlm::parse_url, LdlmBackend>;
constexpr std::array kRows = {BackendRow{"ldlm", kCheck, kPrepare},
                              BackendRow{"ldlms", kCheck, kPrepare}};

}  // namespace
}  // namespace lockfs

const lockfs::BackendModule lockfs_module = {LOCKFS_BUILD, lockfs::kRows};
