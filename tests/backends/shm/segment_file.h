// SPDX-License-Identifier: MIT
#pragma once
#include <unistd.h>

#include <string>

namespace lockfs::shm::test {

/// The path of a segment of this test alone, which is not there yet; removed at the end.
class SegmentFile {
 public:
  SegmentFile() {
    static int count = 0;
    path_ = "/dev/shm/lockfs-test-" + std::to_string(getpid()) + "-" + std::to_string(++count);
  }
  ~SegmentFile() { unlink(path_.c_str()); }
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace lockfs::shm::test
