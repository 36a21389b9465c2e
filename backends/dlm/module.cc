// SPDX-License-Identifier: MIT
#include "backends/module.h"

#include <array>

#include "backends/dlm/cluster.h"
#include "backends/dlm/dlm_backend.h"
#include "backends/url_query.h"

namespace lockfs {
namespace {

// The prefix of its lockspaces' names in the DLM, where others have theirs.
tl::expected<std::string, std::string> parse_dlm(std::string_view rest) {
  const UrlQuery query = split_query(rest);
  std::string prefix = "lockfs_";
  for (const auto& [key, value] : query.options) {
    if (!query.name.empty() || key != "prefix" || value.size() > 32) {
      return tl::make_unexpected(
          "dlm:" + std::string(rest) +
          ": takes no name, and one option, prefix=WORD of at most 32 bytes");
    }
    prefix = value;
  }
  if (!query.name.empty()) return tl::make_unexpected("dlm: takes no name, as the cluster is one");
  return prefix;
}
std::optional<std::string> check_dlm(std::string_view /*scheme*/, std::string_view rest) {
  const auto prefix = parse_dlm(rest);
  return prefix ? std::nullopt : std::optional<std::string>(prefix.error());
}
Prepared prepare_dlm(std::string_view /*scheme*/, std::string_view rest) {
  const auto prefix = parse_dlm(rest);
  if (!prefix) return tl::make_unexpected(prefix.error());
  if (auto missing = dlm::what_is_missing()) return tl::make_unexpected("dlm: " + *missing);
  return [prefix = *prefix](EventLoop& loop) { return std::make_unique<DlmBackend>(loop, prefix); };
}

constexpr std::array kRows = {BackendRow{"dlm", check_dlm, prepare_dlm}};

}  // namespace
}  // namespace lockfs

const lockfs::BackendModule lockfs_module = {LOCKFS_BUILD, lockfs::kRows};
