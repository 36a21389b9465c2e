// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// A backend for which all has been done that may wait: makes it. Called once at most, on the
/// loop's thread, and never waits.
using PreparedBackend = std::function<std::unique_ptr<LockBackend>(EventLoop& loop)>;
using Prepared = tl::expected<PreparedBackend, std::string>;

/// A scheme of URLs, and what is made of what stands behind its colon.
struct BackendRow {
  std::string_view scheme;
  /// What is wrong, in words.
  std::optional<std::string> (*check)(std::string_view scheme, std::string_view rest);
  /// The same, and whether it can be had now. On any thread, and may wait: for a filesystem, a
  /// cluster, another mount.
  Prepared (*prepare)(std::string_view scheme, std::string_view rest);
};

/// What `lockfs serve` serves, until it ends.
class Service {
 public:
  virtual ~Service() = default;
  /// Where, in words.
  virtual std::string place() const = 0;
};
using Served = tl::expected<std::unique_ptr<Service>, std::string>;

/// Backends that need libraries which not every host has: in a file of their own, which is loaded
/// when it is first asked for. It defines `lockfs_module`.
struct BackendModule {
  std::string_view build;  ///< Which lockfs it was built with: by another one it is refused.
  std::span<const BackendRow> rows;
  /// For `lockfs serve`; null: it serves nothing.
  Served (*serve)(std::string_view rest, EventLoop& loop) = nullptr;
};

/// The two of a BackendRow, of a backend that is made of what `parse(scheme, rest)` reads.
template <auto parse>
std::optional<std::string> check_with(std::string_view scheme, std::string_view rest) {
  const auto url = parse(scheme, rest);
  return url ? std::nullopt : std::optional<std::string>(url.error());
}
template <auto parse, class Backend>
Prepared prepare_with(std::string_view scheme, std::string_view rest) {
  auto url = parse(scheme, rest);
  if (!url) return tl::make_unexpected(url.error());
  return [url = std::move(*url)](EventLoop& loop) { return std::make_unique<Backend>(loop, url); };
}

}  // namespace lockfs

extern "C" const lockfs::BackendModule lockfs_module;
