// SPDX-License-Identifier: MIT
// A directory that cannot keep locks is refused at the start, in words.
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "backends/file/file_backend.h"

namespace lockfs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Optional;

class Directory : public testing::Test {
 protected:
  Directory() { path_ = mkdtemp(path_.data()); }
  ~Directory() override {
    umount2(path_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(path_);
  }
  std::string path_ = "/tmp/lockfs-directory-XXXXXX";
};

TEST_F(Directory, OneThatWorksIsTakenAndLeftClean) {
  EXPECT_EQ(FileBackend::try_directory(path_), std::nullopt);
  EXPECT_TRUE(std::filesystem::is_empty(path_));
}

TEST_F(Directory, AMissingOneIsNamed) {
  const std::string missing = path_ + "/missing";
  EXPECT_THAT(FileBackend::try_directory(missing),
              Optional(AllOf(HasSubstr(missing), HasSubstr("No such file or directory"))));
}

TEST_F(Directory, AFileIsNone) {
  const std::string file = path_ + "/file";
  std::ofstream(file) << "x";
  EXPECT_THAT(FileBackend::try_directory(file), Optional(HasSubstr("it is no directory")));
}

TEST_F(Directory, AReadOnlyOneIsRefused) {
  if (mount("tmpfs", path_.c_str(), "tmpfs", MS_RDONLY, "") != 0) GTEST_SKIP() << "cannot mount";
  EXPECT_THAT(FileBackend::try_directory(path_), Optional(HasSubstr("Read-only file system")));
}

TEST_F(Directory, AFullOneIsRefused) {
  if (mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=8k") != 0) GTEST_SKIP() << "cannot mount";
  std::ofstream(path_ + "/filler") << std::string(65536, 'x') << std::flush;
  EXPECT_THAT(FileBackend::try_directory(path_), Optional(HasSubstr("No space left on device")));
}

}  // namespace
}  // namespace lockfs
