// SPDX-License-Identifier: MIT
#include "fs/reload.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "fs/log.h"

namespace lockfs {

Reload::Reload(int argc, const char* const* argv, Options& options)
    : argc_(argc), argv_(argv), options_(options) {
  std::error_code error;
  const std::string file = std::filesystem::weakly_canonical(options.config, error).string();
  hidden_ = file.starts_with(options.mountpoint + "/");
}

bool Reload::run() {
  if (options_.config.empty()) {
    spdlog::warn("SIGHUP changes nothing: there is no config file; give one by --config");
    return false;
  }
  // The loop would wait for its own answer.
  if (hidden_) {
    spdlog::error("SIGHUP changes nothing: {} lies below the mountpoint; keep it elsewhere",
                  options_.config);
    return false;
  }
  const auto fresh = parse_options(argc_, argv_);
  if (!fresh) {
    spdlog::error("SIGHUP changes nothing: {}", fresh.error().words);
    return false;
  }
  const Changes changes = take_changes(options_, *fresh);
  set_log_level("info");  // Whoever asked for it is answered.
  if (changes.taken.empty()) {
    spdlog::info("SIGHUP: {} says nothing new that can change now", options_.config);
  } else {
    spdlog::info("SIGHUP: {} sets {}", options_.config, fmt::join(changes.taken, ", "));
  }
  if (!changes.refused.empty()) {
    spdlog::warn("SIGHUP: {} cannot change while mounted; unmount and mount again for it",
                 fmt::join(changes.refused, ", "));
  }
  set_log_level(options_.log_level);
  return !changes.taken.empty();
}

}  // namespace lockfs
