// SPDX-License-Identifier: MIT
#include "core/processes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

namespace lockfs {
namespace {

/// A child that has done its preparation and then stands still until it is killed. With a program
/// it becomes that, so that it has one thread even if a sanitizer gives this one more.
class Child {
 public:
  explicit Child(const std::function<void()>& prepare, const char* program = nullptr) {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      prepare();
      if (program != nullptr) execl(program, program, "infinity", nullptr);
      close(ready[1]);
      while (true) pause();
    }
    close(ready[1]);
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 0) << "the end of the pipe: it is prepared";
    close(ready[0]);
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void end() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    pid = 0;
  }
  pid_t pid = 0;
};

constexpr const char* kSleep = "/bin/sleep";

/// A file to have open; gone at the end.
class TempFile {
 public:
  TempFile() {
    close(mkstemp(path));
    struct stat info {};
    EXPECT_EQ(stat(path, &info), 0);
    inode = info.st_ino;
  }
  ~TempFile() { unlink(path); }
  char path[32] = "/tmp/lockfs_test_XXXXXX";
  uint64_t inode = 0;
};

TimePoint later() { return Clock::now() + std::chrono::seconds(1); }

TEST(Processes, AThreadBelongsToItsProcess) {
  ProcProcesses processes;
  EXPECT_EQ(processes.process_of(getpid()), getpid());
  std::jthread([&] {
    const auto tid = static_cast<pid_t>(syscall(SYS_gettid));
    EXPECT_NE(tid, getpid());
    EXPECT_EQ(processes.process_of(tid), getpid());
  }).join();
}

TEST(Processes, TheDeadAndTheImpossibleHaveNoProcess) {
  ProcProcesses processes;
  Child child([] {});
  const pid_t dead = child.pid;
  EXPECT_EQ(processes.process_of(dead), dead);
  child.end();
  EXPECT_EQ(processes.process_of(dead), 0);
  EXPECT_EQ(processes.process_of(0), 0);
  EXPECT_EQ(processes.process_of(-1), 0);
  EXPECT_FALSE(processes.sole_releaser(dead, later(), 1, 0));
  EXPECT_EQ(processes.describe(dead).process, 0);
}

TEST(Processes, AChildOfOneThreadThatHasTheFileOpenIsTheSoleReleaser) {
  ProcProcesses processes;
  const TempFile file;
  const Child child([&] { open(file.path, O_RDWR); }, kSleep);
  EXPECT_TRUE(processes.sole_releaser(child.pid, later(), file.inode, 1));
}

TEST(Processes, AChildOfTwoThreadsIsNot) {
  ProcProcesses processes;
  const TempFile file;
  const Child child([&] {
    open(file.path, O_RDWR);
    std::thread([] {
      while (true) pause();
    }).detach();
  });
  EXPECT_FALSE(processes.sole_releaser(child.pid, later(), file.inode, 1));
}

TEST(Processes, AThreadsIdIsNotAProcess) {
  ProcProcesses processes;
  const TempFile file;
  const int fd = open(file.path, O_RDWR);
  std::jthread([&] {
    const auto tid = static_cast<pid_t>(syscall(SYS_gettid));
    EXPECT_FALSE(processes.sole_releaser(tid, later(), file.inode, 1));
  }).join();
  close(fd);
}

TEST(Processes, AProcessYoungerThanTheGrantIsNotItsReleaser) {
  ProcProcesses processes;
  const TempFile file;
  const Child child([&] { open(file.path, O_RDWR); }, kSleep);
  EXPECT_FALSE(
      processes.sole_releaser(child.pid, Clock::now() - std::chrono::minutes(1), file.inode, 1));
}

TEST(Processes, CountsDescriptionsAndNotDescriptors) {
  ProcProcesses processes;
  const TempFile file;
  const Child once(
      [&] {
        const int fd = open(file.path, O_RDWR);
        dup(fd);
        dup(fd);
      },
      kSleep);
  const Child twice(
      [&] {
        open(file.path, O_RDWR);
        open(file.path, O_RDONLY);
      },
      kSleep);
  EXPECT_TRUE(processes.sole_releaser(once.pid, later(), file.inode, 1));
  EXPECT_FALSE(processes.sole_releaser(once.pid, later(), file.inode, 2));
  EXPECT_TRUE(processes.sole_releaser(twice.pid, later(), file.inode, 2));
  EXPECT_FALSE(processes.sole_releaser(twice.pid, later(), file.inode, 3));
}

TEST(Processes, LooksAtSoManyDescriptorsAndThenIsNotCertain) {
  ProcProcesses processes;
  const TempFile file;
  const auto child_with = [&](int others) {
    return Child(
        [&] {
          for (int i = 0; i < others; ++i) dup(0);
          open(file.path, O_RDWR);
        },
        kSleep);
  };
  const Child few = child_with(ProcProcesses::kMostDescriptors / 2);
  const Child many = child_with(ProcProcesses::kMostDescriptors);
  EXPECT_TRUE(processes.sole_releaser(few.pid, later(), file.inode, 1));
  EXPECT_FALSE(processes.sole_releaser(many.pid, later(), file.inode, 1));
}

TEST(Processes, AProcessThatHasTheFileNotOpenIsNotTheReleaser) {
  ProcProcesses processes;
  const TempFile file;
  const Child child([] {}, kSleep);
  EXPECT_FALSE(processes.sole_releaser(child.pid, later(), file.inode, 1));
}

TEST(Processes, DescribesByName) {
  ProcProcesses processes;
  const Child child([] { prctl(PR_SET_NAME, "a) b (c"); });
  const ProcessInfo info = processes.describe(child.pid);
  EXPECT_EQ(info.process, child.pid);
  EXPECT_EQ(info.comm, "a) b (c");
}

TEST(Processes, ANameWithParenthesesDoesNotConfuseItsAge) {
  ProcProcesses processes;
  const TempFile file;
  char folder[] = "/tmp/lockfs_test_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string program = std::string(folder) + "/x) S 1 2 (y";
  ASSERT_EQ(symlink(kSleep, program.c_str()), 0);
  const Child child([&] { open(file.path, O_RDWR); }, program.c_str());
  unlink(program.c_str());
  rmdir(folder);
  EXPECT_EQ(processes.describe(child.pid).comm, "x) S 1 2 (y");
  EXPECT_TRUE(processes.sole_releaser(child.pid, later(), file.inode, 1));
  EXPECT_FALSE(
      processes.sole_releaser(child.pid, Clock::now() - std::chrono::minutes(1), file.inode, 1));
}

}  // namespace
}  // namespace lockfs
