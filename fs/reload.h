// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "core/event_loop.h"
#include "fs/options.h"

namespace lockfs {

/// What SIGHUP does: the config file is read again, as the command line has it. It is read by a
/// thread of its own, for it may lie on a filesystem that does not answer, or on our own mount.
class Reload {
 public:
  /// `options` came from this command line. All outlive this, and whatever is read when this ends
  /// is dropped.
  Reload(EventLoop& loop, int argc, const char* const* argv, Options& options);
  ~Reload();
  Reload(const Reload&) = delete;
  Reload& operator=(const Reload&) = delete;

  /// Reads the file, sets what may change while mounted, and says in the log what has changed and
  /// what stays; a file that is wrong changes nothing, and the log says why. Then calls `done`,
  /// with whether anything has changed; perhaps before this returns. While one is under way another
  /// one is refused, with a word in the log.
  void run(const std::function<void(bool changed)>& done);

 private:
  using Read = tl::expected<Options, OptionsError>;
  bool take(const Read& fresh);

  // Where the thread takes what it has read; nowhere any more once the reload has ended.
  struct Way {
    std::mutex mutex;
    EventLoop* loop = nullptr;
  };

  int argc_;
  const char* const* argv_;
  Options& options_;
  bool reading_ = false;
  std::shared_ptr<Way> way_ = std::make_shared<Way>();
};

}  // namespace lockfs
