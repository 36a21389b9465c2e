// SPDX-License-Identifier: MIT
#include "tests/contract/witness.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <map>

namespace lockfs::test {

bool Step::wait(int seconds) {
  timespec end{};
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += seconds;
  int result = 0;
  while ((result = sem_timedwait(&semaphore_, &end)) != 0 && errno == EINTR) {
  }
  return result == 0;
}

int end_of(Child& child, double seconds) {
  const auto ended = [&] {
    siginfo_t info{};
    const auto pid = static_cast<id_t>(child.pid());
    return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
  };
  return eventually(ended, seconds) ? child.wait() : kHangs;
}

testing::AssertionResult all_end_well(const std::vector<std::unique_ptr<Child>>& children) {
  std::map<int, int> ends;
  for (const auto& child : children) {
    const bool hangs = ends.contains(kHangs);  // One wait for all that do.
    ++ends[end_of(*child, hangs ? 0.1 : 60)];
  }
  if (ends.size() == 1 && ends.contains(0)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "errno, how many: " << testing::PrintToString(ends);
}

int ask(const std::string& path, const std::string& command) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  return fd < 0 ? errno : write_command(fd, command);
}

std::string own(int fd, const std::string& key) {
  std::string text(16384, '\0');
  const ssize_t n = pread(fd, text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return picture_value(text, key);
}

uint64_t token_of(int fd) {
  std::array<char, 32> value{};
  if (fgetxattr(fd, "user.lockfs.token", value.data(), value.size() - 1) <= 0) return 0;
  return std::strtoull(value.data(), nullptr, 10);
}

Stopped::Stopped(pid_t daemon) : daemon_(daemon) {
  kill(daemon, SIGSTOP);
  int status = 0;
  waitpid(daemon, &status, WUNTRACED);
}

Stopped::~Stopped() { kill(daemon_, SIGCONT); }

}  // namespace lockfs::test
