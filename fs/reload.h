// SPDX-License-Identifier: MIT
#pragma once
#include "fs/options.h"

namespace lockfs {

/// What SIGHUP does: the config file is read again, as the command line has it.
class Reload {
 public:
  /// `options` came from this command line, with the real path of the mountpoint; nothing is
  /// mounted yet. All outlive this.
  Reload(int argc, const char* const* argv, Options& options);

  /// Sets what may change while mounted, and says in the log what has changed and what stays. A
  /// file that is wrong changes nothing, and the log says why. Whether anything has changed.
  bool run();

 private:
  int argc_;
  const char* const* argv_;
  Options& options_;
  bool hidden_ = false;  ///< The file lies where the mount hides it.
};

}  // namespace lockfs
