// SPDX-License-Identifier: MIT
#include "ctl/ready.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <iostream>
#include <thread>

#include "ctl/failure.h"
#include "ctl/mount_point.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

constexpr auto kLookAgain = std::chrono::milliseconds(20);

// Asks the mount, in a process of its own: who asks a daemon that is stopped waits for it, and
// ends by SIGKILL only.
class Question {
 public:
  explicit Question(const std::string& wanted) : child_(fork()) {
    if (child_ < 0) throw Failure(ExitCode::kSystem, "ready: no process to ask the mount");
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      read_info(find_mount(wanted), "version");
      _exit(0);
    } catch (const Failure& failure) {
      _exit(static_cast<int>(failure.code()));
    }
  }
  ~Question() {
    if (done_) return;
    kill(child_, SIGKILL);
    while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Question(const Question&) = delete;
  Question& operator=(const Question&) = delete;

  bool is_done() {
    if (!done_) done_ = waitpid(child_, &status_, WNOHANG) != 0;
    return done_;
  }
  bool ended_with(ExitCode code) const {
    return done_ && WIFEXITED(status_) && WEXITSTATUS(status_) == static_cast<int>(code);
  }

 private:
  pid_t child_;
  int status_ = -1;
  bool done_ = false;
};

// What is wrong, in words.
std::string trouble(const std::string& wanted) {
  try {
    return fmt::format("{} does not answer", printable(find_mount(wanted).path));
  } catch (const Failure& failure) {
    return failure.what();
  }
}

}  // namespace

ExitCode wait_until_ready(const std::string& wanted, const ReadyOptions& options) {
  signal(SIGCHLD, SIG_DFL);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.wait);
  do {
    Question question(wanted);
    while (!question.is_done() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (question.ended_with(ExitCode::kOk)) return ExitCode::kOk;
    if (question.ended_with(ExitCode::kUsage)) find_mount(wanted);  // Says what is wrong.
    std::this_thread::sleep_for(kLookAgain);
  } while (std::chrono::steady_clock::now() < end);
  throw Failure(
      ExitCode::kUnavailable,
      fmt::format("not ready within {}: {}", duration_in_words(options.wait), trouble(wanted)));
}

}  // namespace lockfs::ctl
