// SPDX-License-Identifier: MIT
// podman's directory of locks, when there is something else in it.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "backends/libpod/libpod_locks.h"

namespace lockfs::libpod {
namespace {

TEST(LibpodDirectory, WaitsForNobodyAtAFifo) {
  alarm(20);  // What waits is ended by it.
  std::string pattern = "/tmp/lockfs-libpod-XXXXXX";
  const std::string path = mkdtemp(pattern.data());
  ASSERT_EQ(mkfifo((path + "/17").c_str(), 0666), 0);
  const auto locks = open_directory(path);
  ASSERT_TRUE(locks);
  EXPECT_EQ((*locks)->holder(17), std::nullopt);
  alarm(0);
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace lockfs::libpod
