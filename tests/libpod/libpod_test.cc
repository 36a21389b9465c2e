// SPDX-License-Identifier: MIT
// podman's locks as files: a segment and a directory as podman's two managers make them, made here
// as its C and Go sources do, held by processes of this test; beside real mounts.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

// libpod/lock/shm/shm_lock.h
struct LockGroup {
  uint32_t bitmap;
  pthread_mutex_t locks[32];
};
struct ShmStruct {
  uint16_t magic;
  uint16_t unused;
  pthread_mutex_t segment_lock;
  uint32_t num_bitmaps;
  uint32_t num_locks;
  LockGroup locks[2];
};

void init_mutex(pthread_mutex_t& mutex) {
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_NORMAL);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&mutex, &attr);
  pthread_mutexattr_destroy(&attr);
}

/// One of podman's managers: where its locks are, and what podman does with them.
class Podman {
 public:
  virtual ~Podman() = default;
  virtual std::string url() const = 0;
  virtual void allocate(uint32_t id) = 0;
  virtual bool is_allocated(uint32_t id) = 0;
  /// In the calling thread or process; waits.
  virtual int lock(uint32_t id) = 0;
  virtual void unlock(uint32_t id) = 0;
};

class ShmPodman final : public Podman {
 public:
  ShmPodman() { make(); }
  ~ShmPodman() override { unlink(path().c_str()); }
  std::string url() const override { return "shm:/" + name_ + "?layout=libpod"; }
  void allocate(uint32_t id) override { shm_->locks[id / 32].bitmap |= 1U << (id % 32); }
  bool is_allocated(uint32_t id) override {
    return (shm_->locks[id / 32].bitmap >> (id % 32) & 1U) != 0;
  }
  int lock(uint32_t id) override {
    const int result = pthread_mutex_lock(&mutex(id));
    return result == EOWNERDEAD ? pthread_mutex_consistent(&mutex(id)) : result;
  }
  void unlock(uint32_t id) override { pthread_mutex_unlock(&mutex(id)); }
  pthread_mutex_t& mutex(uint32_t id) { return shm_->locks[id / 32].locks[id % 32]; }
  ShmStruct& shm() { return *shm_; }
  std::string path() const { return "/dev/shm/" + name_; }
  /// As `podman system renumber`: a new segment of the same name.
  void make() {
    unlink(path().c_str());
    const int fd = shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_EQ(ftruncate(fd, sizeof(ShmStruct)), 0);
    shm_ = static_cast<ShmStruct*>(
        mmap(nullptr, sizeof(ShmStruct), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    init_mutex(shm_->segment_lock);
    for (LockGroup& group : shm_->locks) {
      for (pthread_mutex_t& lock : group.locks) init_mutex(lock);
    }
    shm_->num_bitmaps = 2;
    shm_->num_locks = 64;
    shm_->magic = 0x87D1;
  }

 private:
  std::string name_ = "lockfs-test-libpod-" + std::to_string(getpid());
  ShmStruct* shm_ = nullptr;
};

class FilePodman final : public Podman {
 public:
  FilePodman() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~FilePodman() override { std::filesystem::remove_all(directory_); }
  std::string url() const override { return "file:" + directory_ + "?layout=libpod"; }
  void allocate(uint32_t id) override {
    close(open(file(id).c_str(), O_RDWR | O_CREAT | O_EXCL, 0666));
  }
  bool is_allocated(uint32_t id) override { return access(file(id).c_str(), F_OK) == 0; }
  int lock(uint32_t id) override {
    fd_ = open(file(id).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    struct flock whole {};
    whole.l_type = F_WRLCK;
    return fcntl(fd_, F_SETLKW, &whole) == 0 ? 0 : errno;
  }
  void unlock(uint32_t /*id*/) override { close(fd_); }

 private:
  std::string file(uint32_t id) const { return directory_ + "/" + std::to_string(id); }
  std::string directory_ = "/tmp/lockfs-libpod-XXXXXX";
  int fd_ = -1;
};

class Libpod : public testing::TestWithParam<const char*> {
 protected:
  Libpod() {
    if (std::string(GetParam()) == "shm") {
      podman_ = std::make_unique<ShmPodman>();
    } else {
      podman_ = std::make_unique<FilePodman>();
    }
    podman_->allocate(3);
    podman_->allocate(17);
  }
  Podman& podman() { return *podman_; }
  /// A process that holds a lock as podman does, until it is told to go.
  std::unique_ptr<Child> podman_holds(uint32_t id, const Mount& mount) {
    auto holder = std::make_unique<Child>([this, id] {
      const int result = podman_->lock(id);
      return result != 0 ? result : pause();
    });
    EXPECT_TRUE(eventually(
        [&] { return picture_value(slurp(mount.lock(std::to_string(id))), "mode") == "EX"; }));
    return holder;
  }
  std::unique_ptr<Mount> writable() {
    return std::make_unique<Mount>(std::vector<std::string>{}, podman_->url() + ",write");
  }
  std::unique_ptr<Mount> readable() {
    return std::make_unique<Mount>(std::vector<std::string>{}, podman_->url());
  }

 private:
  std::unique_ptr<Podman> podman_;
};
INSTANTIATE_TEST_SUITE_P(Managers, Libpod, testing::Values("shm", "file"),
                         [](const auto& manager) { return std::string(manager.param); });

std::set<std::string> listed(const Mount& mount) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(mount.path() + "/default")) {
    const std::string name = entry.path().filename();
    if (name != ".ctl") names.insert(name);
  }
  return names;
}

int control(const Mount& mount, const std::string& command) {
  const int fd = open((mount.path() + "/default/.ctl").c_str(), O_RDWR | O_CLOEXEC);
  const int result = write_command(fd, command);
  close(fd);
  return result;
}

int open_lock(const Mount& mount, const std::string& id) {
  return open(mount.lock(id).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
}

TEST_P(Libpod, WhatIsAllocatedIsListedAndFreeUntilItIsHeld) {
  const auto mount = readable();
  EXPECT_THAT(listed(*mount), testing::ElementsAre("17", "3"));
  EXPECT_EQ(picture_value(slurp(mount->lock("17")), "mode"), "free");
  EXPECT_EQ(access(mount->lock("4").c_str(), F_OK), -1);
  podman().allocate(4);
  EXPECT_EQ(access(mount->lock("4").c_str(), F_OK), 0);
}

TEST_P(Libpod, AHolderIsNamedByItsProcessAndItsCommand) {
  const auto mount = readable();
  const auto holder = podman_holds(17, *mount);
  const std::string picture = slurp(mount->lock("17"));
  EXPECT_EQ(picture_value(picture, "holders.0.pid"), std::to_string(holder->pid())) << picture;
  EXPECT_NE(picture_value(picture, "holders.0.comm"), "") << picture;
  EXPECT_THAT(slurp(mount->path() + "/.lockfs/locks.json"),
              testing::HasSubstr(std::to_string(holder->pid())));
  EXPECT_EQ(picture_value(slurp(mount->lock("3")), "mode"), "free");
}

TEST_P(Libpod, NothingIsTakenWithoutWrite) {
  const auto mount = readable();
  EXPECT_EQ(write_command(open_lock(*mount, "17"), "EX try"), EOPNOTSUPP);
  EXPECT_EQ(control(*mount, "allocate"), EOPNOTSUPP);
  EXPECT_EQ(control(*mount, "free 17"), EOPNOTSUPP);
  EXPECT_EQ(unlink(mount->lock("17").c_str()), -1);
  EXPECT_TRUE(podman().is_allocated(17));
}

TEST_P(Libpod, TheMountAndPodmanExcludeEachOther) {
  const auto mount = writable();
  auto holder = podman_holds(17, *mount);
  const int fd = open_lock(*mount, "17");
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
  Child waiter([&] { return write_command(open_lock(*mount, "17"), "EX timeout=20s"); });
  ASSERT_TRUE(
      eventually([&] { return picture_value(slurp(mount->lock("17")), "waiters_total") == "1"; }));
  holder.reset();  // By SIGKILL: its lock is nobody's.
  EXPECT_EQ(waiter.wait(), 0);
  ASSERT_EQ(write_command(fd, "EX timeout=10s"), 0);
  Child podman_waits([&] { return podman().lock(17); });
  EXPECT_FALSE(eventually([&] { return kill(podman_waits.pid(), 0) != 0; }, 0.05));
  ASSERT_EQ(write_command(fd, "UN"), 0);
  EXPECT_EQ(podman_waits.wait(), 0);
}

TEST_P(Libpod, WhatTheMountHoldsHasOneHolder) {
  const auto mount = writable();
  ASSERT_EQ(write_command(open_lock(*mount, "17"), "EX"), 0);
  const std::string picture = slurp(mount->lock("17"));
  EXPECT_EQ(picture_value(picture, "holders_total"), "1") << picture;
  EXPECT_EQ(picture_value(picture, "holders.0.pid"), std::to_string(getpid())) << picture;
  EXPECT_EQ(picture_value(picture, "holders.1.mode"), "") << picture;
  const auto other = writable();
  EXPECT_EQ(picture_value(slurp(other->lock("17")), "mode"), "EX") << "another mount sees it";
}

TEST_P(Libpod, AWaitThatIsGivenUpTakesNothing) {
  const auto mount = writable();
  auto holder = podman_holds(17, *mount);
  const int fd = open_lock(*mount, "17");
  Child waiter([&] { return write_command(fd, "EX timeout=50ms"); });
  EXPECT_EQ(waiter.wait(), ETIMEDOUT);
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
  holder.reset();
  // The wait within could not be ended: it has given the lock back.
  Child podman_takes([&] { return podman().lock(17); });
  EXPECT_EQ(podman_takes.wait(), 0);
  EXPECT_EQ(write_command(fd, "EX timeout=10s"), 0);
}

TEST_P(Libpod, ADaemonsDeathFreesWhatItHeld) {
  const auto mount = writable();
  ASSERT_EQ(write_command(open_lock(*mount, "17"), "EX"), 0);
  kill(mount->daemon(), SIGKILL);
  Child podman_takes([&] { return podman().lock(17); });
  EXPECT_EQ(podman_takes.wait(), 0);
}

TEST_P(Libpod, NumbersAreAllocatedForPodmanToo) {
  const auto mount = writable();
  EXPECT_EQ(control(*mount, "allocate"), 0);
  EXPECT_TRUE(podman().is_allocated(0));
  EXPECT_EQ(control(*mount, "allocate 17"), EEXIST);
  EXPECT_EQ(control(*mount, "free 17"), 0);
  EXPECT_FALSE(podman().is_allocated(17));
  EXPECT_EQ(write_command(open_lock(*mount, "3"), "EX try"), 0);
  EXPECT_EQ(control(*mount, "free 3"), 0) << "held as it is";
}

TEST_P(Libpod, WhatWasReleasedCanBeTakenAtOnce) {
  const auto mount = writable();
  for (int i = 0; i < 200; ++i) {
    const int fd = open_lock(*mount, "17");
    ASSERT_EQ(write_command(fd, "EX try"), 0) << i;
    close(fd);
  }
}

TEST_P(Libpod, OtherNamesAreNoLocks) {
  const auto mount = writable();
  for (const char* name : {"x", "017", "-1", "99999", "4"}) {
    const int fd = open_lock(*mount, name);
    EXPECT_EQ(write_command(fd, "EX try"), ENOENT) << name;
    close(fd);
  }
}

TEST(LibpodSegment, IsFollowedWhenPodmanRenumbers) {
  ShmPodman podman;
  podman.allocate(5);
  const Mount mount({}, podman.url());
  EXPECT_THAT(listed(mount), testing::ElementsAre("5"));
  podman.make();
  podman.allocate(6);
  EXPECT_THAT(listed(mount), testing::ElementsAre("6"));
}

TEST(LibpodSegment, OfWhatIsNotPodmansIsRefusedInWords) {
  ShmPodman podman;
  const auto why = [&](const std::string& url) {
    try {
      const Mount mount({}, url);
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("mounted");
  };
  podman.shm().magic = 1;
  EXPECT_THAT(why(podman.url()), testing::HasSubstr("no lock segment of podman"));
  podman.shm().magic = 0x87D1;
  podman.shm().num_bitmaps = 3;
  EXPECT_THAT(why(podman.url()), testing::HasSubstr("its size is not that of its locks"));
  EXPECT_THAT(why("shm:/lockfs-no-such-segment?layout=libpod"),
              testing::HasSubstr("podman makes it with its first command"));
}

TEST(LibpodSegment, AMutexThatIsNoneIsNotTouched) {
  ShmPodman podman;
  podman.allocate(17);
  const Mount mount({}, podman.url() + ",write");
  podman.mutex(17).__data.__kind = 0x5555;
  EXPECT_EQ(write_command(open_lock(mount, "17"), "EX try"), EHOSTUNREACH);
  EXPECT_EQ(access(mount.lock("17").c_str(), F_OK), 0) << "the daemon lives";
}

}  // namespace
}  // namespace lockfs::test
