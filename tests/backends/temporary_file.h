// SPDX-License-Identifier: MIT
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lockfs::test {

/// An empty file that is gone when this ends.
class TemporaryFile {
 public:
  TemporaryFile() {
    const int fd = mkstemp(path_.data());
    if (fd < 0) throw std::runtime_error("mkstemp");
    close(fd);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  /// A new open file description.
  int open_again() const { return open(path_.c_str(), O_RDWR | O_CLOEXEC); }

 private:
  std::string path_ = "/tmp/lockfs-file-XXXXXX";
};

}  // namespace lockfs::test
