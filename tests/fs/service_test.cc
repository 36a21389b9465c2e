// SPDX-License-Identifier: MIT
// As a service: what systemd is told and when, and what SIGHUP changes.
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Stands in systemd's place: who is started while it is there tells it how it fares.
class NotifySocket {
 public:
  NotifySocket() {
    if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
    const std::string path = directory_ + "/notify";
    address_.sun_family = AF_UNIX;
    path.copy(address_.sun_path, sizeof address_.sun_path - 1);
    fd_ = Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(bind(fd_.get(), address(), sizeof address_), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~NotifySocket() {
    unsetenv("NOTIFY_SOCKET");
    unlink(address_.sun_path);
    rmdir(directory_.c_str());
  }
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  /// What was said next; "" if nothing comes.
  std::string next() {
    std::string out;
    eventually([&] { return !(out = take()).empty(); });
    return out;
  }
  /// Puts words of others before all that will be said, so that there is room for `room` more.
  void fill(int room) {
    // Each sender has a limit of its own; the queue is full when a new one cannot say anything.
    for (bool full = false; !full;) {
      full = true;
      others_.emplace_back(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      ASSERT_EQ(connect(others_.back().get(), address(), sizeof address_), 0);
      while (send(others_.back().get(), "x", 1, 0) == 1) full = false;
    }
    for (int i = 0; i < room; ++i) EXPECT_EQ(take(), "x");
  }
  /// The next that is no word of fill().
  std::string next_after_filling() {
    std::string out = "x";
    while (out == "x") out = next();
    return out;
  }

 private:
  const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&address_); }
  std::string take() const {
    std::array<char, 4096> words{};
    const ssize_t n = recv(fd_.get(), words.data(), words.size(), 0);
    return n > 0 ? std::string(words.data(), static_cast<size_t>(n)) : "";
  }

  std::string directory_ = "/tmp/lockfs-notify-XXXXXX";
  sockaddr_un address_{};
  Fd fd_;
  std::vector<Fd> others_;
};

// The minor number of the mount there, by which the kernel calls it; empty: there is none.
std::string number_of_mount(const std::string& mountpoint) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string skipped;
    std::string device;
    std::string place;
    words >> skipped >> skipped >> device >> skipped >> place;
    if (place == mountpoint) return device.substr(device.find(':') + 1);
  }
  return {};
}

// A directory with a config file, and one for a mount that it starts.
class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    mkdir(mountpoint().c_str(), 0755);
    mkdir(connections().c_str(), 0755);
    EXPECT_EQ(::mount("fusectl", connections().c_str(), "fusectl", 0, nullptr), 0);
  }
  ~ServiceTest() override {
    umount2(mountpoint().c_str(), MNT_DETACH);  // Where a test has failed.
    umount2(connections().c_str(), MNT_DETACH);
    rmdir(connections().c_str());
    unlink(file().c_str());
    rmdir(mountpoint().c_str());
    rmdir(directory_.c_str());
  }
  const std::string& directory() const { return directory_; }
  std::string mountpoint() const { return directory_ + "/m"; }
  std::string connections() const { return directory_ + "/c"; }
  /// What the mount has agreed with the kernel, of requests in the background: 12 until it has
  /// agreed, then what lockfs asks for, 65535. 0: there is no mount.
  int agreed_background() const {
    const std::string number = number_of_mount(mountpoint());
    return std::stoi("0" + slurp(connections() + "/" + number + "/max_background"));
  }
  std::string file() const { return directory_ + "/lockfs.toml"; }
  void configure(const std::string& text) const { std::ofstream(file()) << text; }
  Mount mount_with(const std::string& text) const {
    configure(text);
    return Mount({"--config", file()});
  }
  static std::string setting(const Mount& mount, const std::string& key) {
    return picture_value(slurp(mount.path() + "/.lockfs/config"), key);
  }
  static bool says(const Mount& mount, const std::string& words) {
    return eventually([&] { return mount.log().find(words) != std::string::npos; });
  }

 private:
  std::string directory_ = "/tmp/lockfs-service-XXXXXX";
};

TEST_F(ServiceTest, IsReadyOnlyWhenTheMountAnswers) {
  NotifySocket systemd;
  // It can say one word; the next is READY=1, and while it waits to say that, it does nothing else.
  systemd.fill(1);
  const std::string program = lockfs_binary();
  Child daemon([&] {
    execl(program.c_str(), program.c_str(), "-f", "memory:", mountpoint().c_str(), nullptr);
    return 127;
  });
  ASSERT_TRUE(eventually([&] { return sleeps_in(daemon.pid(), SYS_sendmsg); }));
  EXPECT_EQ(agreed_background(), 65535) << "it is mounted, and answers";
  EXPECT_THAT(systemd.next_after_filling(), StartsWith("STATUS=joining"));
  EXPECT_THAT(systemd.next(), StartsWith("READY=1\nSTATUS=serving memory: at " + mountpoint()));
  EXPECT_EQ(access((mountpoint() + "/.lockfs/version").c_str(), R_OK), 0);
  daemon.signal(SIGTERM);
  EXPECT_THAT(systemd.next(), StartsWith("STOPPING=1"));
  EXPECT_EQ(daemon.wait(), 0);
  EXPECT_EQ(agreed_background(), 0);
}

TEST_F(ServiceTest, IsNeverReadyWithAMountThatFails) {
  NotifySocket systemd;
  const std::string program = lockfs_binary();
  Child daemon([&] {
    execl(program.c_str(), program.c_str(), "-f", "-o", "bogus=1", mountpoint().c_str(), nullptr);
    return 127;
  });
  EXPECT_EQ(daemon.wait(), 2);
  EXPECT_THAT(systemd.next(), StartsWith("STATUS=joining"));
  systemd.fill(0);
  EXPECT_EQ(systemd.next(), "x") << "nothing else was said";
}

TEST_F(ServiceTest, TellsSystemdWhenItReadsItsFileAgain) {
  NotifySocket systemd;
  const Mount mount = mount_with("capacity = 5");
  EXPECT_THAT(systemd.next(), StartsWith("STATUS=joining"));
  EXPECT_THAT(systemd.next(), StartsWith("READY=1"));
  timespec before{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  kill(mount.daemon(), SIGHUP);
  const std::string reloading = systemd.next();
  const std::string start = "RELOADING=1\nMONOTONIC_USEC=";
  ASSERT_THAT(reloading, StartsWith(start));
  EXPECT_GE(std::stoll(reloading.substr(start.size())),
            before.tv_sec * 1000000 + before.tv_nsec / 1000);
  EXPECT_THAT(systemd.next(), StartsWith("READY=1\nSTATUS=serving"));
}

TEST_F(ServiceTest, SighupSetsLimitsLevelIdleNamesAndCapacity) {
  const Mount mount = mount_with("max_lockspaces = 2\nlog_level = \"error\"");
  Actor user;
  ASSERT_EQ(user.become(12345), 0);
  ASSERT_EQ(user.open(mount.lock("a")), 0);
  ASSERT_EQ(user.open(mount.lock("b")), 0);
  ASSERT_EQ(mkdir((mount.path() + "/one").c_str(), 0777), 0);
  ASSERT_NE(mkdir((mount.path() + "/two").c_str(), 0777), 0);
  configure(
      "max_lockspaces = 3\nmax_opens_per_user = 2\nmax_waiters_per_user = 7\n"
      "max_names_per_user = 8\nidle_names = 9\ncapacity = 10\nlog_level = \"warn\"\n");
  kill(mount.daemon(), SIGHUP);
  ASSERT_TRUE(eventually([&] { return setting(mount, "capacity") == "10"; })) << mount.log();
  EXPECT_EQ(setting(mount, "max_waiters_per_user"), "7");
  EXPECT_EQ(setting(mount, "max_names_per_user"), "8");
  EXPECT_EQ(setting(mount, "idle_names"), "9");
  EXPECT_EQ(mkdir((mount.path() + "/two").c_str(), 0777), 0);
  EXPECT_EQ(setting(mount, "lockspace.two.capacity"), "10");
  EXPECT_EQ(setting(mount, "lockspace.one.capacity"), "2048") << "which was there before";
  EXPECT_EQ(user.open(mount.lock("c")), ENOLCK) << "it has two open";
  EXPECT_TRUE(says(mount, "warning: open refused to uid 12345")) << mount.log();
  EXPECT_TRUE(says(mount, "capacity=10")) << mount.log();
}

TEST_F(ServiceTest, SighupNamesWhatCannotChange) {
  const Mount mount = mount_with("[lockspace.jobs]\nmode = \"0770\"\n[lockspace.same]\n");
  configure(
      "poll = \"0us\"\nroot_mode = \"0755\"\ncapacity = 4\n"
      "[lockspace.jobs]\nmode = \"0700\"\n[lockspace.new]\nbackend = \"memory:\"\n"
      "[lockspace.same]\n");
  kill(mount.daemon(), SIGHUP);
  ASSERT_TRUE(says(mount, "poll=0us, root_mode=0755, lockspace.jobs, lockspace.new cannot change"))
      << mount.log();
  EXPECT_EQ(setting(mount, "poll"), "40us");
  EXPECT_EQ(setting(mount, "root_mode"), "1777");
  EXPECT_EQ(setting(mount, "lockspace.jobs.mode"), "0770");
  EXPECT_EQ(setting(mount, "lockspace.new.mode"), "");
  EXPECT_EQ(setting(mount, "capacity"), "4") << "what can change does";
}

TEST_F(ServiceTest, SighupWithAWrongFileChangesNothingAndSaysWhy) {
  const Mount mount = mount_with("capacity = 5");
  configure("capacity = 6\nidle_names = \"many\"\nmax_lockspaces = 0\n");
  kill(mount.daemon(), SIGHUP);
  ASSERT_TRUE(says(mount, "SIGHUP changes nothing: " + file() + ", line 2: idle_names: 'many'"))
      << mount.log();
  EXPECT_THAT(mount.log(), HasSubstr(file() + ", line 3: max_lockspaces: '0'"));
  EXPECT_EQ(setting(mount, "capacity"), "5");
  unlink(file().c_str());
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(
      says(mount, "SIGHUP changes nothing: " + file() + ": is no regular file, or it is gone"))
      << mount.log();
  EXPECT_EQ(setting(mount, "capacity"), "5");
}

TEST_F(ServiceTest, WhatStandsOnTheCommandLineStaysBeforeTheFile) {
  configure("capacity = 5\nidle_names = 5");
  const Mount mount({"-o", "capacity=7,config=" + file()});
  configure("capacity = 6\nidle_names = 6");
  kill(mount.daemon(), SIGHUP);
  ASSERT_TRUE(eventually([&] { return setting(mount, "idle_names") == "6"; })) << mount.log();
  EXPECT_EQ(setting(mount, "capacity"), "7");
}

// As Kubernetes gives its files, and changes them: all at once, by the link of their folder.
TEST_F(ServiceTest, SighupFollowsALinkThatLeadsElsewhereByNow) {
  const std::string base = directory() + "/";
  for (const std::string name : {"v1", "v2"}) mkdir((base + name).c_str(), 0755);
  std::ofstream(base + "v1/lockfs.toml") << "capacity = 1";
  std::ofstream(base + "v2/lockfs.toml") << "capacity = 2";
  ASSERT_EQ(symlink("v1", (base + "data").c_str()), 0);
  ASSERT_EQ(symlink("data/lockfs.toml", file().c_str()), 0);
  {
    const Mount mount({"--config", file()});
    ASSERT_EQ(setting(mount, "capacity"), "1");
    ASSERT_EQ(symlink("v2", (base + "data.new").c_str()), 0);
    ASSERT_EQ(rename((base + "data.new").c_str(), (base + "data").c_str()), 0);
    kill(mount.daemon(), SIGHUP);
    EXPECT_TRUE(eventually([&] { return setting(mount, "capacity") == "2"; })) << mount.log();
  }
  for (const std::string name : {"v1/lockfs.toml", "v2/lockfs.toml", "data"}) {
    unlink((base + name).c_str());
  }
  for (const std::string name : {"v1", "v2"}) rmdir((base + name).c_str());
}

// The file is read on a thread. A daemon that dies of the want of one takes all locks along.
TEST_F(ServiceTest, SighupWithoutRoomForAThreadIsRefusedInWords) {
  if (kSanitized) GTEST_SKIP() << "its address space has no end";
  const Mount mount = mount_with("capacity = 5");
  configure("capacity = 6");
  rlimit before{};
  rlimit now{};
  ASSERT_EQ(prlimit(mount.daemon(), RLIMIT_AS, nullptr, &before), 0);
  now = before;
  std::ifstream pages("/proc/" + std::to_string(mount.daemon()) + "/statm");
  pages >> now.rlim_cur;
  now.rlim_cur = now.rlim_cur * static_cast<rlim_t>(getpagesize()) + (1U << 20U);
  ASSERT_EQ(prlimit(mount.daemon(), RLIMIT_AS, &now, nullptr), 0);
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(says(mount, "there is no thread to read " + file())) << mount.log();
  EXPECT_EQ(setting(mount, "capacity"), "5");
  ASSERT_EQ(prlimit(mount.daemon(), RLIMIT_AS, &before, nullptr), 0);
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(eventually([&] { return setting(mount, "capacity") == "6"; })) << mount.log();
}

TEST_F(ServiceTest, SighupWithoutAFileSaysSo) {
  const Mount mount;
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(says(mount, "SIGHUP changes nothing: there is no config file")) << mount.log();
  EXPECT_EQ(access((mount.path() + "/.lockfs/version").c_str(), R_OK), 0);
}

TEST_F(ServiceTest, AFileBelowTheMountStopsNothing) {
  const std::string hidden = mountpoint() + "/lockfs.toml";
  std::ofstream(hidden) << "capacity = 5";
  const std::string log = file();
  const std::string program = lockfs_binary();
  Child daemon([&] {
    if (freopen(log.c_str(), "w", stderr) == nullptr) return 126;
    execl(program.c_str(), program.c_str(), "-f", "--config", hidden.c_str(), mountpoint().c_str(),
          nullptr);
    return 127;
  });
  ASSERT_TRUE(eventually([&] { return agreed_background() == 65535; })) << slurp(log);
  daemon.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return slurp(log).find("it is gone") != std::string::npos; }))
      << slurp(log);
  daemon.signal(SIGTERM);
  EXPECT_EQ(daemon.wait(), 0);
  unlink(hidden.c_str());
}

TEST_F(ServiceTest, SighupLooksAtNoBackend) {
  const Mount mount = mount_with("capacity = 5");
  configure("capacity = 6\n[lockspace.jobs]\nbackend = \"redis://127.0.0.1:1?password-file=" +
            mount.path() + "/default/secret\"\n");
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(says(mount, "lockspace.jobs cannot change while mounted")) << mount.log();
  EXPECT_EQ(setting(mount, "capacity"), "6");
}

TEST_F(ServiceTest, AFileThatIsAPipeStopsNothing) {
  const Mount mount = mount_with("capacity = 5");
  unlink(file().c_str());
  ASSERT_EQ(mkfifo(file().c_str(), 0600), 0);
  kill(mount.daemon(), SIGHUP);
  EXPECT_TRUE(says(mount, "is no regular file")) << mount.log();
  EXPECT_EQ(setting(mount, "capacity"), "5");
}

TEST_F(ServiceTest, IsNeverReadyWithAMountThatLibfuseGaveUp) {
  NotifySocket systemd;
  const std::string program = lockfs_binary();
  Child daemon([&] {
    execl(program.c_str(), program.c_str(), "-f", "-o", "max_read=1000", mountpoint().c_str(),
          nullptr);
    return 127;
  });
  EXPECT_EQ(daemon.wait(), 1);
  EXPECT_THAT(systemd.next(), StartsWith("STATUS=joining"));
  EXPECT_THAT(systemd.next(), StartsWith("STOPPING=1"));
  EXPECT_EQ(agreed_background(), 0);
}

// Called as mount(8) calls it.
class HelperTest : public ServiceTest {
 protected:
  HelperTest() { EXPECT_EQ(symlink(lockfs_binary().c_str(), helper().c_str()), 0); }
  ~HelperTest() override { unlink(helper().c_str()); }
  int code(const std::string& words) const {
    const int status = std::system((helper() + " " + words + " 2>/dev/null").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  std::string helper() const { return directory() + "/mount.fuse.lockfs"; }
};

TEST_F(HelperTest, FailsWithMountsCodes) {
  EXPECT_EQ(code("memory: " + mountpoint() + " -o capacity=x"), 1);
  EXPECT_EQ(code("memory: " + mountpoint() + "/none"), 32);
  EXPECT_EQ(code("file:/does/not/exist " + mountpoint()), 32);
}

// mount(8), "filesystem-independent mount options".
TEST_F(HelperTest, TakesWhatFstabSaysOfAnyFilesystem) {
  for (const std::string word :
       {"async",      "sync",     "dirsync",       "atime",     "noatime",     "diratime",
        "nodiratime", "relatime", "norelatime",    "auto",      "noauto",      "defaults",
        "dev",        "nodev",    "exec",          "noexec",    "suid",        "nosuid",
        "group",      "owner",    "user",          "nouser",    "users",       "user=me",
        "iversion",   "nomand",   "noiversion",    "_netdev",   "nofail",      "ro",
        "rw",         "lazytime", "nolazytime",    "symfollow", "nosymfollow", "loud",
        "silent",     "x-a.b=c",  "X-mount.mkdir", "comment=c", "strictatime", "nostrictatime"}) {
    EXPECT_EQ(code("-f memory: " + mountpoint() + " -o " + word), 0) << word;
  }
  EXPECT_EQ(code("-f memory: " + mountpoint() + " -o mand"), 1) << "it says something of locks";
  EXPECT_EQ(code("memory: " + mountpoint() + " -o rw,nodiratime,iversion,nomand,sync,dirsync"), 0);
  EXPECT_EQ(access((mountpoint() + "/.lockfs/version").c_str(), R_OK), 0);
}

}  // namespace
}  // namespace lockfs::test
