// SPDX-License-Identifier: MIT
// One mount with several lockspaces, each with the backend that the config file gives it.
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

class Lockspaces : public ::testing::Test {
 protected:
  Lockspaces() {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    std::filesystem::create_directory(folder_ + "/files");
    std::ofstream(folder_ + "/lockfs.toml")
        << "[lockspace.files]\nbackend = \"file:" << folder_ << "/files\"\n"
        << "[lockspace.shared]\nbackend = \"shm:" << segment_ << "?locks=64\"\nmode = \"0770\"\n"
        << "[lockspace.down]\nbackend = \"file:" << folder_ << "/missing\"\ncapacity = 7\n";
    one_ = mount();
  }
  ~Lockspaces() override {
    one_.reset();
    std::filesystem::remove_all(folder_);
    unlink(("/dev/shm/" + segment_).c_str());
  }
  std::unique_ptr<Mount> mount() const {
    return std::make_unique<Mount>(std::vector<std::string>{"--config", folder_ + "/lockfs.toml"});
  }
  Mount& one() { return *one_; }
  const std::string& folder() const { return folder_; }
  static int exclusive(const Mount& mount, const std::string& lock) {
    return ::open(mount.lock(lock).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }

 private:
  std::string folder_ = "/tmp/lockfs-spaces-XXXXXX";
  std::string segment_ = "lockfs-spaces-" + std::to_string(getpid());
  std::unique_ptr<Mount> one_;
};

TEST_F(Lockspaces, EachHasItsBackend) {
  const auto traits = nlohmann::json::parse(slurp(one().path() + "/.lockfs/traits"));
  EXPECT_EQ(traits.at("default").at("backend"), "memory");
  EXPECT_EQ(traits.at("files").at("backend"), "file");
  EXPECT_EQ(traits.at("shared").at("backend"), "shm");
  EXPECT_EQ(traits.at("down").at("backend"), "file");
  const YAML::Node config = YAML::Load(slurp(one().path() + "/.lockfs/config"));
  EXPECT_EQ(config["lockspace"]["files"]["backend"].as<std::string>(),
            "file:" + folder() + "/files");
  EXPECT_EQ(config["lockspace"]["default"]["backend"].as<std::string>(), "memory:");
  EXPECT_EQ(config["lockspace"]["shared"]["mode"].as<std::string>(), "0770");
  EXPECT_EQ(config["lockspace"]["down"]["capacity"].as<int>(), 7);
}

TEST_F(Lockspaces, AreSharedWithOtherMountsAsTheirBackendsAre) {
  const auto two = mount();
  for (const std::string space : {"default", "files", "shared"}) {
    ASSERT_GE(exclusive(one(), space + "/a"), 0) << space;
    const bool alone = space == "default";
    EXPECT_EQ(exclusive(*two, space + "/a") >= 0, alone) << space;
  }
}

TEST_F(Lockspaces, OneThatIsDownTakesNoOtherWithIt) {
  EXPECT_EQ(exclusive(one(), "down/a"), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  EXPECT_EQ(::open(one().lock("down/b").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  const int control = ::open((one().path() + "/down/.ctl").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(write_command(control, "allocate"), EHOSTUNREACH);
  for (const std::string space : {"default", "files", "shared"}) {
    EXPECT_GE(exclusive(one(), space + "/a"), 0) << space;
  }
  EXPECT_NE(one().log().find("lockspace down is out of reach"), std::string::npos) << one().log();
}

TEST_F(Lockspaces, OneThatWasDownIsThereWhenItsBackendIs) {
  ASSERT_EQ(exclusive(one(), "down/a"), -1);
  std::filesystem::create_directory(folder() + "/missing");
  int fd = -1;
  EXPECT_TRUE(eventually([&] { return (fd = exclusive(one(), "down/a")) >= 0; }));
  EXPECT_EQ(exclusive(one(), "down/a"), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_TRUE(std::filesystem::exists(folder() + "/missing/down/a"));
}

// The directory of one goes away while it is in use.
TEST_F(Lockspaces, OneThatBreaksTakesNoOtherWithIt) {
  ASSERT_GE(exclusive(one(), "files/held"), 0);
  std::filesystem::rename(folder() + "/files", folder() + "/moved");
  EXPECT_EQ(exclusive(one(), "files/a"), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  EXPECT_GE(exclusive(one(), "default/a"), 0);
  EXPECT_GE(exclusive(one(), "shared/a"), 0);
}

// A filesystem that does not answer, below `hung`: a mount whose daemon is stopped. No lock can be
// kept there, so `hung` is out of reach from the start, and tried again and again.
class HungLockspace : public ::testing::Test {
 protected:
  HungLockspace() {
    std::ofstream(config_) << "[lockspace.hung]\nbackend = \"file:" << other_.path()
                           << "/default\"\n";
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // It would stop a thread that never answers.
    one_ = std::make_unique<Mount>(std::vector<std::string>{"--config", config_});
    EXPECT_THAT(state(), ::testing::HasSubstr("cannot write there"));
    kill(other_.daemon(), SIGSTOP);
    EXPECT_TRUE(eventually([&] { return state().find("has not answered") != std::string::npos; }))
        << state();
  }
  ~HungLockspace() override {
    kill(other_.daemon(), SIGCONT);
    unlink(config_.c_str());
  }
  std::string state() const {
    const auto traits = nlohmann::json::parse(slurp(one_->path() + "/.lockfs/traits"));
    return traits.at("hung").at("status").at("state");
  }
  Mount& one() { return *one_; }
  Mount& other() { return other_; }

 private:
  std::string config_ = "/tmp/lockfs-hung-" + std::to_string(getpid()) + ".toml";
  Mount other_;
  std::unique_ptr<Mount> one_;
};

TEST_F(HungLockspace, KeepsNoOtherFromItsAnswers) {
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) {
    const Fd lock(::open(one().lock("x").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    EXPECT_EQ(flock_of(lock.get(), LOCK_EX | LOCK_NB), 0);
  }
  EXPECT_EQ(::open(one().lock("hung/x").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(1));
}

TEST_F(HungLockspace, IsTriedAgainOnceItsFilesystemAnswers) {
  kill(other().daemon(), SIGCONT);
  EXPECT_TRUE(eventually([&] { return state().find("has not answered") == std::string::npos; }));
  EXPECT_THAT(state(), ::testing::HasSubstr("cannot write there"));
}

TEST_F(HungLockspace, KeepsNoDaemonFromItsEnd) {
  kill(one().daemon(), SIGTERM);
  siginfo_t ended{};
  EXPECT_TRUE(eventually([&] {
    return waitid(P_PID, static_cast<id_t>(one().daemon()), &ended, WEXITED | WNOWAIT | WNOHANG) ==
               0 &&
           ended.si_pid == one().daemon();
  }));
  EXPECT_EQ(ended.si_code, CLD_EXITED);
  EXPECT_EQ(ended.si_status, 0);
  EXPECT_NE(access((one().path() + "/.lockfs").c_str(), F_OK), 0) << "it is unmounted";
}

// Why a mount of SOURCE is refused.
std::string refusal(const std::string& source) {
  try {
    const Mount mount({}, source);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "it was mounted";
}

TEST(FileSource, OnAFilesystemThatKeepsNoLocksIsRefused) {
  std::string folder = "/tmp/lockfs-null-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  struct stat before {};
  stat(folder.c_str(), &before);
  const Child null_fs([&] { return execl(LOCKFS_NULL_FS, "null_fs", folder.c_str(), nullptr); });
  EXPECT_TRUE(eventually([&] {
    struct stat now {};
    return stat(folder.c_str(), &now) == 0 && now.st_dev != before.st_dev;
  }));
  EXPECT_THAT(refusal("file:" + folder), ::testing::HasSubstr("grants one lock twice"));
  umount2(folder.c_str(), MNT_DETACH);
  rmdir(folder.c_str());
}

TEST(FileSource, OnAMountOfLocksIsRefused) {
  const Mount mount;
  EXPECT_THAT(refusal("file:" + mount.path() + "/default"),
              ::testing::HasSubstr("cannot write there"));
}

}  // namespace
}  // namespace lockfs::test
