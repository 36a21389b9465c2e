// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>

#include "system/open_file.h"

namespace lockfs {

/// A descriptor that is kept, to be given up for a moment when there is no other.
class SpareDescriptor {
 public:
  SpareDescriptor() { take(); }
  /// False if it had none to give.
  bool give() {
    const bool had = static_cast<bool>(file_);
    file_ = OpenFile();
    return had;
  }
  void take() {
    if (!file_) file_ = OpenFile(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }

 private:
  OpenFile file_;
};

}  // namespace lockfs
