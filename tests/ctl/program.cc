// SPDX-License-Identifier: MIT
#include "tests/ctl/program.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>

namespace lockfs::test {
namespace {

void forbid_kcmp() {
  std::array<sock_filter, 4> steps = {
      sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kcmp, 0, 1),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{steps.size(), steps.data()};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(125);
}

}  // namespace

Program::Program(const Words& words, const Circumstances& circumstances)
    : out_(memfd_create("out", MFD_CLOEXEC)), err_(memfd_create("err", MFD_CLOEXEC)) {
  pid_ = fork();
  if (pid_ == 0) become(words, circumstances);
  setpgid(pid_, pid_);
}

Program::~Program() {
  kill(-pid_, SIGKILL);
  if (!reaped_) waitpid(pid_, nullptr, 0);
}

void Program::become(const Words& words, const Circumstances& circumstances) const {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = ::open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out_.get(), STDOUT_FILENO);
  dup2(err_.get(), STDERR_FILENO);
  close(null);
  for (const auto& [key, value] : circumstances.environment) setenv(key.c_str(), value.c_str(), 1);
  for (const int number : circumstances.ignored) std::signal(number, SIG_IGN);
  if (circumstances.without_kcmp) forbid_kcmp();
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  // Another user may not get through the directories above the program.
  const int program = circumstances.uid == 0 ? -1 : ::open(argv[0], O_PATH);
  if (circumstances.uid != 0) {
    const bool became = setgroups(0, nullptr) == 0 && setgid(circumstances.uid) == 0 &&
                        setuid(circumstances.uid) == 0;
    if (!became) _exit(126);
    fexecve(program, argv.data(), environ);
  }
  execvp(argv[0], argv.data());
  _exit(127);
}

void Program::signal(int number) const { kill(pid_, number); }

std::string Program::text_of(const Fd& file) {
  std::string text;
  std::array<char, 65536> piece{};
  ssize_t n = 0;
  while ((n = pread(file.get(), piece.data(), piece.size(), static_cast<off_t>(text.size()))) > 0) {
    text.append(piece.data(), static_cast<size_t>(n));
  }
  return text;
}

bool Program::eventually_says(const std::string& words) const {
  return eventually([&] {
    return out().find(words) != std::string::npos || err().find(words) != std::string::npos;
  });
}

bool Program::has_ended() {
  if (!reaped_) reaped_ = waitpid(pid_, &status_, WNOHANG) == pid_;
  return reaped_;
}

int Program::wait() {
  while (!reaped_) reaped_ = waitpid(pid_, &status_, 0) == pid_ || errno != EINTR;
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
}

Ended run(const Words& words, const Circumstances& circumstances) {
  Program program(words, circumstances);
  const int status = program.wait();
  return {status, program.out(), program.err()};
}

Words LockctlTest::line(const Words& words) {
  Words all = {LOCKCTL};
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

Circumstances LockctlTest::here(uid_t uid) const {
  return {{{"LOCKFS_MOUNT", mount_.path()}, {"SHELL", "/bin/sh"}}, uid, {}};
}

bool LockctlTest::eventually_held(const std::string& name) const {
  return eventually([&] { return visible(name); });
}

}  // namespace lockfs::test
