// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "core/lock_errc.h"

namespace lockfs::dlm {

/// A lockspace of the kernel's DLM that this mount has joined. All mounts of a host join it once
/// together, as the kernel counts, whichever of them comes first; a file in /run/lockfs says so,
/// and its byte locks say who is left, so that nothing stays joined for ever when a mount dies.
class KernelLockspace {
 public:
  struct Failure {
    LockErrc why = LockErrc::kUnreachable;
    std::string words;
  };
  /// Joins it, made with `mode` if the cluster has none of that name. Waits for the cluster.
  static tl::expected<std::unique_ptr<KernelLockspace>, Failure> join(std::string_view name,
                                                                      mode_t mode);
  /// Closes it: the kernel frees the locks. The host stays in it; see leave().
  ~KernelLockspace();
  KernelLockspace(const KernelLockspace&) = delete;
  KernelLockspace& operator=(const KernelLockspace&) = delete;

  /// Closes it, and takes the host out of it if no other mount has it. kBusy, and open as before,
  /// when another program of the host has it open; with `force` the host leaves as soon as that has
  /// closed it. Waits for the cluster.
  LockErrc leave(bool force);

  const std::string& name() const { return name_; }
  void* handle() const { return handle_; }  ///< dlm_lshandle_t
  int fd() const;

 private:
  KernelLockspace(std::string name, int marker) : name_(std::move(name)), marker_(marker) {}
  std::string name_;
  int marker_ = -1;  ///< The file in /run/lockfs.
  void* handle_ = nullptr;
};

}  // namespace lockfs::dlm
