// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "backends/module.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// A form of URLs, whether or not what it needs is on this host.
struct BackendUsage {
  std::string_view url;   ///< From its scheme on, "shm:NAME"; options stand behind a '?'.
  std::string_view help;  ///< Who shares the locks; the options.
  const char* module;     ///< What has it; null: the program.
};
std::span<const BackendUsage> backend_usages();

/// What is wrong with a URL, in words; nullopt when a backend could be made of it.
std::optional<std::string> check_backend_url(std::string_view url);

/// A URL without its password, for whoever reads mounts, logs and control files.
std::string shown_url(std::string_view url);

/// Does all that may wait for the backend of a URL such as "memory:", so that it can be made; else
/// says in words what is wrong. On any thread.
Prepared prepare_backend(std::string_view url);

/// Prepares a backend and makes it; so it may wait. The backend may watch descriptors of `loop` and
/// post into it, and ends before the loop does.
tl::expected<std::unique_ptr<LockBackend>, std::string> make_backend(std::string_view url,
                                                                     EventLoop& loop);

/// Serves what a URL says, as `lockfs serve` does; else says in words what is wrong.
Served make_service(std::string_view url, EventLoop& loop);

}  // namespace lockfs
