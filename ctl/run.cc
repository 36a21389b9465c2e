// SPDX-License-Identifier: MIT
#include "ctl/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>

#include "ctl/failure.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

constexpr std::array kPassedOn = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

// The words to execute.
std::vector<std::string> command_of(const RunOptions& options) {
  std::vector<std::string> words = options.command;
  if (!words.empty() && words.front() == "--") words.erase(words.begin());
  std::string shell_command = options.shell_command;
  // As flock(1) has it: NAME -c COMMAND.
  if (!words.empty() && (words.front() == "-c" || words.front() == "--command")) {
    if (words.size() != 2 || !shell_command.empty()) {
      throw Failure(ExitCode::kUsage, "-c takes exactly one command, in quotes");
    }
    shell_command = words[1];
    words.clear();
  }
  if (shell_command.empty()) return words;
  if (!words.empty()) {
    throw Failure(ExitCode::kUsage, "either -c 'COMMAND' or -- COMMAND, not both");
  }
  const char* shell = std::getenv("SHELL");
  return {shell != nullptr && *shell != '\0' ? shell : "/bin/sh", "-c", shell_command};
}

void check(const RunOptions& options) {
  const std::string& mode = options.acquire.mode;
  if (options.no_fork && options.close) {
    throw Failure(ExitCode::kUsage, "-F and -o do not go together: nobody would hold the lock");
  }
  if ((mode == "SLOT") != (options.acquire.size != 0)) {
    throw Failure(ExitCode::kUsage, "-m SLOT and --size N go together");
  }
}

[[noreturn]] void execute(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  const int error = errno;
  const std::string said = fmt::format("lockctl: {} cannot be started: {}\n",
                                       printable(words.front()), std::strerror(error));
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, said.data(), said.size());
  _exit(static_cast<int>(error == ENOMEM ? ExitCode::kSystem : ExitCode::kUnavailable));
}

// Runs the command and waits for its end, with the lock in hand.
class Supervisor {
 public:
  Supervisor(const OpenFile& held, const RunOptions& options, std::string name)
      : held_(held), options_(options), name_(std::move(name)) {}

  int run(const std::vector<std::string>& words) {
    sigset_t before;
    const OpenFile signals = watch_signals(before);
    if (is_lost()) fail_as_lost();
    std::cout.flush();
    const pid_t lockctl = getpid();
    child_ = fork();
    if (child_ < 0) {
      throw Failure(ExitCode::kSystem,
                    fmt::format("{}: no process for the command: {}", name_, std::strerror(errno)));
    }
    if (child_ == 0) begin(words, before, lockctl);
    // A key that was pressed just before the fork has not reached the command by itself. One that
    // reaches it twice does so once: it is blocked there until it begins.
    if (const auto status = take_signals(signals, true)) return end(*status);
    return wait(signals);
  }

 private:
  // From here on they are read, not acted upon: none is lost between now and the fork, and none
  // ends us without the command.
  static OpenFile watch_signals(sigset_t& before) {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : kPassedOn) sigaddset(&signals, signal);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, &before);
    OpenFile fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (fd.get() < 0) throw Failure(ExitCode::kSystem, "no descriptor is left for signals");
    return fd;
  }

  // In the child.
  [[noreturn]] void begin(const std::vector<std::string>& words, const sigset_t& before,
                          pid_t lockctl) const {
    if (options_.close) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != lockctl) _exit(static_cast<int>(ExitCode::kLost));
    } else {
      fcntl(held_.get(), F_SETFD, 0);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    execute(words);
  }

  int wait(const OpenFile& signals) {
    std::array<pollfd, 2> fds = {pollfd{signals.get(), POLLIN, 0}, pollfd{held_.get(), 0, 0}};
    for (;;) {
      if (poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR: stopped and continued.
      if ((fds[0].revents & POLLIN) != 0) {
        if (const auto status = take_signals(signals, false)) return end(*status);
      }
      if (fds[1].revents != 0) {
        fds[1].fd = -1;
        tell_lost();
      }
    }
  }

  // Passes on what has arrived. The command's status, if it has ended.
  std::optional<int> take_signals(const OpenFile& signals, bool keys_too) const {
    signalfd_siginfo info{};
    while (read(signals.get(), &info, sizeof info) == sizeof info) {
      const auto number = static_cast<int>(info.ssi_signo);
      // A key of the terminal has sent it to the command as well: it is in our process group.
      const bool by_key = info.ssi_code == SI_KERNEL && (number == SIGINT || number == SIGQUIT);
      if (number != SIGCHLD && (keys_too || !by_key)) kill(child_, number);
    }
    int status = 0;
    // Other children, of whoever became lockctl by exec, are not ours to reap.
    if (waitpid(child_, &status, WNOHANG) != child_) return std::nullopt;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  bool is_lost() const {
    pollfd fd{held_.get(), 0, 0};
    return poll(&fd, 1, 0) == 1 && fd.revents != 0;
  }

  [[noreturn]] void fail_as_lost() const {
    throw Failure(ExitCode::kLost,
                  fmt::format("{} was lost before the command began: {}", name_, why_lost(held_)));
  }

  void tell_lost() {
    lost_ = true;
    const bool ends = options_.onlost != "none";
    if (ends) kill(child_, options_.onlost == "kill" ? SIGKILL : SIGTERM);  // Before any word.
    std::cerr << fmt::format(
        "lockctl: {} was lost: {}; {}\n", name_, why_lost(held_),
        ends ? "the command is told to end" : "the command goes on without it");
  }

  int end(int status) const {
    return lost_ && options_.onlost != "none" ? static_cast<int>(ExitCode::kLost) : status;
  }

  const OpenFile& held_;
  const RunOptions& options_;
  const std::string name_;
  pid_t child_ = -1;
  bool lost_ = false;
};

// lockctl becomes the command: then it is the mount that tells it of a loss.
[[noreturn]] void become(const OpenFile& held, const std::vector<std::string>& words) {
  fcntl(held.get(), F_SETFD, 0);
  execute(words);
}

}  // namespace

int run_command(const MountPoint& mount, RunOptions options) {
  if (options.shared) options.acquire.mode = "PR";
  check(options);
  const std::vector<std::string> words = command_of(options);
  if (words.empty()) {
    throw Failure(ExitCode::kUsage, "run: which command? lockctl run NAME -- COMMAND");
  }
  const LockPath lock = parse_lock_path(mount, options.name);
  if (options.no_fork && options.onlost != "none") {
    options.acquire.signal_when_lost = options.onlost == "kill" ? "KILL" : "TERM";
  }
  std::signal(SIGCHLD, SIG_DFL);  // Ignored, it would keep the command's status from us.
  std::optional<OpenFile> held;
  try {
    held.emplace(acquire(mount, lock, options.acquire));
  } catch (const Failure& failure) {
    if (failure.code() != ExitCode::kNo) throw;
    if (!options.quiet) std::cerr << "lockctl: " << failure.what() << "\n";
    return options.conflict_exit_code;
  }
  setenv("LOCKFS_TOKEN", token_of(*held).c_str(), 1);
  setenv("LOCKFS_LOCK", lock.name().c_str(), 1);
  unsetenv("LOCKFS_FD");  // That of a lockctl around us would not be this lock's.
  if (!options.close) setenv("LOCKFS_FD", std::to_string(held->get()).c_str(), 1);
  if (options.no_fork) become(*held, words);
  return Supervisor(*held, options, lock.shown()).run(words);
}

}  // namespace lockfs::ctl
