// SPDX-License-Identifier: MIT
#include "fs/reload.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "backends/worker_thread.h"
#include "fs/log.h"

namespace lockfs {

Reload::Reload(EventLoop& loop, int argc, const char* const* argv, Options& options)
    : argc_(argc), argv_(argv), options_(options) {
  way_->loop = &loop;
}

Reload::~Reload() {
  const std::lock_guard lock(way_->mutex);
  way_->loop = nullptr;
}

void Reload::run(const std::function<void(bool changed)>& done) {
  if (options_.config.empty()) {
    spdlog::warn("SIGHUP changes nothing: there is no config file; give one by --config");
    return done(false);
  }
  if (reading_) {
    spdlog::warn("SIGHUP: {} is still being read; does its filesystem answer?", options_.config);
    return done(false);
  }
  const auto read = [this, way = way_, argc = argc_, argv = argv_, config = options_.config, done] {
    const Read fresh = parse_options_again(argc, argv, config);
    const std::lock_guard lock(way->mutex);
    if (way->loop == nullptr) return;
    way->loop->post([this, done, fresh] {
      reading_ = false;
      done(take(fresh));
    });
  };
  // Never waited for: what it reads may never answer. The process ends without it.
  reading_ = detached_thread("read " + options_.config, read);
  if (!reading_) done(false);
}

bool Reload::take(const Read& fresh) {
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
