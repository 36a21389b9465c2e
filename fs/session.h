// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/event_loop.h"
#include "fs/fuse.h"
#include "fs/lock_fs.h"

namespace lockfs {

/// The connection with the kernel: mounts, reads /dev/fuse in order on the loop, unmounts.
class Session {
 public:
  Session(EventLoop& loop, LockFs& fs, const Options& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Hands the mount options to libfuse. What is wrong with them; its own words are in the log.
  std::optional<std::string> read_options();
  /// Mounts, with the options read. What is wrong; libfuse's own words are in the log.
  std::optional<std::string> mount();
  /// Called once, when the kernel has agreed to serve: the mount answers from then on. With words
  /// when it cannot serve safely; the loop has then been stopped.
  void on_ready(std::function<void(std::optional<std::string>)> ready) {
    ready_ = std::move(ready);
  }
  /// The kernel's first request: agrees on capabilities.
  void init(fuse_conn_info* connection);
  LockFs& fs() { return fs_; }

 private:
  bool take_request();
  void check_kernel();

  EventLoop& loop_;
  const Options& options_;
  LockFs& fs_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
  std::vector<char> buffer_;
  std::function<void(std::optional<std::string>)> ready_;
};

/// What libfuse has against the mount options, in the words of Session::read_options(), without a
/// mount.
std::optional<std::string> refused_mount_options(const Options& options);

/// The table of handlers; their `userdata` is the Session.
const fuse_lowlevel_ops& operations();

}  // namespace lockfs
