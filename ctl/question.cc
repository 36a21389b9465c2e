// SPDX-License-Identifier: MIT
#include "ctl/question.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "ctl/failure.h"

namespace lockfs::ctl {
namespace {

void write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) return;
    if (n > 0) done += static_cast<size_t>(n);
  }
}

[[noreturn]] void answer_to(int fd, const std::function<std::string()>& ask) {
  ExitCode code = ExitCode::kOk;
  std::string text;
  try {
    text = ask();
  } catch (const Failure& failure) {
    code = failure.code();
    text = failure.what();
  } catch (const std::exception& error) {
    code = ExitCode::kSystem;
    text = error.what();
  }
  write_all(fd, text);
  _exit(static_cast<int>(code));
}

}  // namespace

Question::Question(const std::function<std::string()>& ask) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Failure(ExitCode::kSystem, "no pipe is left");
  answers_ = OpenFile(ends[0]);
  const OpenFile writing(ends[1]);
  const pid_t parent = getpid();
  child_ = fork();
  if (child_ < 0) throw Failure(ExitCode::kSystem, "no process is left to ask the mount");
  if (child_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    answer_to(writing.get(), ask);
  }
  fcntl(answers_.get(), F_SETFL, O_NONBLOCK);
}

Question::~Question() {
  if (child_ <= 0) return;
  kill(child_, SIGKILL);
  waitpid(child_, nullptr, WNOHANG);
}

std::optional<std::string> Question::answer() {
  std::array<char, 65536> piece{};
  ssize_t n = 0;
  while ((n = read(answers_.get(), piece.data(), piece.size())) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0) text_.append(piece.data(), static_cast<size_t>(n));
  }
  if (n < 0) return std::nullopt;
  int status = 0;
  while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::move(text_);
  if (!WIFEXITED(status)) throw Failure(ExitCode::kSystem, "who asked the mount was killed");
  throw Failure(static_cast<ExitCode>(WEXITSTATUS(status)), text_);
}

}  // namespace lockfs::ctl
