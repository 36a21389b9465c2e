// SPDX-License-Identifier: MIT
// Mounts of `file:` whose directory is not as it should be: what users read of it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;

class FileTrouble : public testing::Test {
 protected:
  FileTrouble() { mount_ = std::make_unique<Mount>(std::vector<std::string>{}, "file:" + path_); }
  ~FileTrouble() override {
    for (const int fd : descriptors_) close(fd);
    mount_.reset();
    std::filesystem::remove_all(path_);
  }
  int open_lock(const std::string& name) {
    descriptors_.push_back(open(mount_->lock(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    return descriptors_.back();
  }
  std::string traits() const { return slurp(mount_->path() + "/.lockfs/traits"); }

  std::string pattern_ = "/tmp/lockfs-trouble-XXXXXX";
  std::string path_ = mkdtemp(pattern_.data());
  std::unique_ptr<Mount> mount_;
  std::vector<int> descriptors_;
};

TEST_F(FileTrouble, EHOSTUNREACHLeadsToTheWordsInTraitsMetricsAndTheLog) {
  EXPECT_THAT(traits(), HasSubstr("\"state\": \"up\""));
  const int fd = open_lock("job");
  std::filesystem::remove_all(path_);
  ASSERT_EQ(write_command(fd, "EX try"), EHOSTUNREACH);
  EXPECT_THAT(own(fd, "this.error"), HasSubstr(".lockfs/traits and the log say why"));
  const std::string words = path_ + ": No such file or directory";
  EXPECT_TRUE(eventually([&] { return traits().find(words) != std::string::npos; })) << traits();
  EXPECT_THAT(mount_->log(), HasSubstr(words));
  EXPECT_THAT(slurp(mount_->path() + "/.lockfs/metrics"),
              HasSubstr("lockfs_backend_up{lockspace=\"default\",backend=\"file\"} 0"));
  EXPECT_EQ(open(mount_->lock("other").c_str(), O_RDONLY), -1);
  EXPECT_EQ(errno, EHOSTUNREACH) << "nobody can tell whether it is there";
  std::filesystem::create_directory(path_);
  EXPECT_TRUE(eventually([&] { return write_command(fd, "EX try") == 0; }));
  EXPECT_TRUE(eventually([&] { return traits().find("\"up\"") != std::string::npos; }));
}

TEST_F(FileTrouble, ANameThatIsNoFileIsRefusedInWords) {
  std::filesystem::create_directories(path_ + "/default/directory");
  ASSERT_EQ(mkfifo((path_ + "/default/fifo").c_str(), 0666), 0);
  for (const char* name : {"directory", "fifo"}) {
    const int fd = open_lock(name);
    EXPECT_EQ(write_command(fd, "EX"), EINVAL) << name;
    EXPECT_THAT(own(fd, "this.error"), HasSubstr("can have no lock of this name")) << name;
  }
  const int fd = open_lock("job");
  EXPECT_EQ(write_command(fd, "EX"), 0) << "it goes on";
  std::set<std::string> names;
  for (const auto& each : std::filesystem::directory_iterator(mount_->path() + "/default")) {
    names.insert(each.path().filename());
  }
  EXPECT_THAT(names, testing::ElementsAre(".ctl", "job"));
}

}  // namespace
}  // namespace lockfs::test
