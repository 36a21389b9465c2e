// SPDX-License-Identifier: MIT
#include "tests/chaos/chaos.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <stdexcept>

namespace lockfs::test {
namespace {

// glibc's wrappers change all threads of the process; the system calls themselves change one.
bool set_effective(uid_t uid) {
  constexpr auto kKeep = static_cast<uid_t>(-1);
  if (uid == 0 && syscall(SYS_setresuid, kKeep, uid, kKeep) != 0) return false;
  if (syscall(SYS_setgroups, 0, nullptr) != 0) return false;
  if (syscall(SYS_setresgid, kKeep, uid, kKeep) != 0) return false;
  return uid == 0 || syscall(SYS_setresuid, kKeep, uid, kKeep) == 0;
}

}  // namespace

As::As(uid_t uid) {
  if (!set_effective(uid)) throw std::runtime_error("cannot become another user: not root?");
}

As::~As() {
  if (!set_effective(0)) std::abort();
}

bool become(uid_t uid) {
  return setgroups(0, nullptr) == 0 && setgid(uid) == 0 && setuid(uid) == 0;
}

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

int64_t monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

std::pair<int, std::string> run_lockfs(const std::vector<std::string>& words) {
  const char* set = std::getenv("LOCKFS_BINARY");
  std::string program = set != nullptr ? set : LOCKFS_BINARY_BUILT;
  std::vector<std::string> copies = words;
  std::vector<char*> argv = {program.data()};
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    alarm(60);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  close(ends[1]);
  int status = 0;
  waitpid(child, &status, 0);
  // A daemon that it left behind may keep the pipe open: what is there now is all.
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::string output;
  std::array<char, 4096> piece{};
  ssize_t n = 0;
  while ((n = read(ends[0], piece.data(), piece.size())) > 0) {
    output.append(piece.data(), static_cast<size_t>(n));
  }
  close(ends[0]);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), output};
}

}  // namespace lockfs::test
