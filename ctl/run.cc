// SPDX-License-Identifier: MIT
#include "ctl/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>
#include <set>

#include "ctl/failure.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

constexpr std::array kPassedOn = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

// The words to execute.
std::vector<std::string> command_of(const RunOptions& options) {
  std::vector<std::string> words = options.command;
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

// The kernel spares the first process of a container the default action of a signal; while it waits
// for the lock there is nobody else to act upon it.
void end_by_signals() {
  if (getpid() != 1) return;
  for (const int signal : kPassedOn) {
    if (std::signal(signal, [](int number) { _exit(128 + number); }) == SIG_IGN) {
      std::signal(signal, SIG_IGN);
    }
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
    const OpenFile events = watch(signals);
    if (is_lost()) fail_as_lost();
    adopt();
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Failure(ExitCode::kSystem, "no pipe is left");
    const OpenFile gate(ends[0]);
    OpenFile opener(ends[1]);
    std::cout.flush();
    const pid_t lockctl = getpid();
    child_ = fork();
    if (child_ < 0) {
      throw Failure(ExitCode::kSystem,
                    fmt::format("{}: no process for the command: {}", name_, std::strerror(errno)));
    }
    if (child_ == 0) {
      opener = OpenFile();
      begin(words, before, lockctl, gate);
    }
    // A key that was pressed just before the fork has not reached the command by itself. One that
    // reaches it twice does so once: it is blocked there until the gate is open.
    const auto status = take_signals(signals, true);
    opener = OpenFile();
    return end(status ? *status : wait(signals, events));
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

  // Not poll(2), which asks all its files again when one of them wakes it: a daemon that is stopped
  // would keep signals from us. This one asks those only that have something to tell.
  OpenFile watch(const OpenFile& signals) const {
    OpenFile events(epoll_create1(EPOLL_CLOEXEC));
    epoll_event signal{EPOLLIN, {.fd = signals.get()}};
    epoll_event loss{EPOLLERR, {.fd = held_.get()}};
    const bool watches = events.get() >= 0 &&
                         epoll_ctl(events.get(), EPOLL_CTL_ADD, signals.get(), &signal) == 0 &&
                         epoll_ctl(events.get(), EPOLL_CTL_ADD, held_.get(), &loss) == 0;
    if (!watches) throw Failure(ExitCode::kSystem, "no descriptor is left to watch the lock");
    return events;
  }

  // Orphans of the command become ours, to be found and reaped; but whoever became lockctl by exec
  // may have children, which are to be left alone.
  void adopt() {
    adopts_ = waitid(P_ALL, 0, nullptr, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD;
    if (adopts_) prctl(PR_SET_CHILD_SUBREAPER, 1);
  }

  // In the child.
  [[noreturn]] void begin(const std::vector<std::string>& words, const sigset_t& before,
                          pid_t lockctl, const OpenFile& gate) const {
    char nothing = 0;
    while (read(gate.get(), &nothing, 1) < 0 && errno == EINTR) {
    }
    if (options_.close) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != lockctl) _exit(static_cast<int>(ExitCode::kLost));
    } else {
      fcntl(held_.get(), F_SETFD, 0);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    execute(words);
  }

  // How it has ended, as waitpid(2) tells.
  int wait(const OpenFile& signals, const OpenFile& events) {
    for (;;) {
      epoll_event event{};
      if (epoll_wait(events.get(), &event, 1, -1) != 1) continue;  // Stopped and continued.
      if (event.data.fd == held_.get()) {
        epoll_ctl(events.get(), EPOLL_CTL_DEL, held_.get(), nullptr);
        tell_lost();
      } else if (const auto status = take_signals(signals, false)) {
        return *status;
      }
    }
  }

  // Passes on what has arrived. How the command has ended, if it has.
  std::optional<int> take_signals(const OpenFile& signals, bool keys_too) {
    signalfd_siginfo info{};
    while (read(signals.get(), &info, sizeof info) == sizeof info) {
      const auto number = static_cast<int>(info.ssi_signo);
      // A key of the terminal has sent it to the command as well, if that is in our process group:
      // timeout(1) and setsid(1) make one of their own.
      const bool by_key = info.ssi_code == SI_KERNEL && (number == SIGINT || number == SIGQUIT) &&
                          getpgid(child_) == getpgrp();
      if (number == SIGCHLD) continue;
      taken_.insert(number);
      if (keys_too || !by_key) kill(child_, number);
    }
    int status = 0;
    pid_t ended = 0;
    while ((ended = waitpid(adopts_ ? -1 : child_, &status, WNOHANG)) > 0) {
      if (ended == child_) return status;
    }
    return std::nullopt;
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
    if (ends) end_command(options_.onlost == "kill" ? SIGKILL : SIGTERM);  // Before any word.
    std::cerr << fmt::format(
        "lockctl: {} was lost: {}; {}\n", name_, why_lost(held_),
        ends ? "the command is told to end" : "the command goes on without it");
  }

  // All that the command has started, too. Who is killed may have begun one more just before; who
  // is told to end may do so for ever.
  void end_command(int signal) const {
    std::set<pid_t> told;
    bool again = true;
    while (again) {
      again = false;
      std::vector<pid_t> all = descendants_of(adopts_ ? getpid() : child_);
      all.push_back(child_);
      for (const pid_t pid : all) {
        if (!told.insert(pid).second) continue;
        kill(pid, signal);
        again = signal == SIGKILL;
      }
    }
  }

  int end(int status) const {
    if (lost_ && options_.onlost != "none") return static_cast<int>(ExitCode::kLost);
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    const int signal = WTERMSIG(status);
    if (taken_.contains(signal)) die_of(signal);
    return 128 + signal;
  }

  // A shell ends its script, and its loop, only when Ctrl-C has killed what it waits for. Returns
  // where nothing can: in the first process of a container.
  static void die_of(int signal) {
    std::cout.flush();
    const rlimit no_core{};
    setrlimit(RLIMIT_CORE, &no_core);
    std::signal(signal, SIG_DFL);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    raise(signal);
    sigprocmask(SIG_UNBLOCK, &one, nullptr);
  }

  const OpenFile& held_;
  const RunOptions& options_;
  const std::string name_;
  pid_t child_ = -1;
  bool adopts_ = false;  ///< All our children are of the command.
  bool lost_ = false;
  std::set<int> taken_;  ///< The signals that came.
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
  end_by_signals();
  std::signal(SIGCHLD, SIG_DFL);  // Ignored, it would keep the command's status from us.
  const auto start = std::chrono::steady_clock::now();
  std::optional<OpenFile> held;
  try {
    held.emplace(acquire(mount, lock, options.acquire));
  } catch (const Failure& failure) {
    if (failure.code() != ExitCode::kNo) throw;
    if (!options.quiet) std::cerr << "lockctl: " << failure.what() << "\n";
    return options.conflict_exit_code;
  }
  if (options.verbose) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cerr << fmt::format("lockctl: got {} after {:.6f} s\n", lock.shown(), took.count());
  }
  setenv("LOCKFS_TOKEN", token_of(*held).c_str(), 1);
  setenv("LOCKFS_LOCK", lock.name().c_str(), 1);
  unsetenv("LOCKFS_FD");  // That of a lockctl around us would not be this lock's.
  if (!options.close) setenv("LOCKFS_FD", std::to_string(held->get()).c_str(), 1);
  if (options.no_fork) become(*held, words);
  return Supervisor(*held, options, lock.shown()).run(words);
}

}  // namespace lockfs::ctl
