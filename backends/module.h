// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// A scheme of URLs, and what is made of what stands behind its colon.
struct BackendRow {
  std::string_view scheme;
  /// What is wrong, in words.
  std::optional<std::string> (*check)(std::string_view scheme, std::string_view rest);
  /// Of what check() has passed.
  tl::expected<std::unique_ptr<LockBackend>, std::string> (*make)(std::string_view scheme,
                                                                  std::string_view rest,
                                                                  EventLoop& loop);
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
tl::expected<std::unique_ptr<LockBackend>, std::string> make_with(std::string_view scheme,
                                                                  std::string_view rest,
                                                                  EventLoop& loop) {
  return std::make_unique<Backend>(loop, *parse(scheme, rest));
}

}  // namespace lockfs

extern "C" const lockfs::BackendModule lockfs_module;
