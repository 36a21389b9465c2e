// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>

#include "backends/late_backend.h"
#include "backends/registry.h"
#include "fs/command_line.h"
#include "fs/log.h"
#include "fs/mount_point.h"
#include "fs/reload.h"
#include "fs/serve.h"
#include "fs/service_state.h"
#include "fs/session.h"

namespace lockfs {
namespace {

// Exit codes.
constexpr int kOk = 0;
constexpr int kFailed = 1;  ///< It could not mount, or the mount ended by an error.
constexpr int kUsage = 2;   ///< An option, a URL or the config file is wrong.

// To as many descriptors as we may have: file: keeps one for each lock.
void raise_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// The daemon's word to the process that started it: one byte when the mount answers.
class Parent {
 public:
  /// Forks unless in the foreground. The parent does not come back: it exits with the child's
  /// first word, or its failure.
  explicit Parent(const Options& options) : options_(options) {
    std::array<int, 2> ends{};
    if (options.foreground || pipe2(ends.data(), O_CLOEXEC) != 0) return;
    const pid_t child = fork();
    if (child > 0) {
      close(ends[1]);
      char word = 0;
      const bool ready = read(ends[0], &word, 1) == 1;
      if (ready) _exit(kOk);
      int status = 0;
      waitpid(child, &status, 0);
      _exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : kFailed);
    }
    close(ends[0]);
    write_end_ = ends[1];
    setsid();
  }
  void tell_ready() {
    if (write_end_ < 0) return;
    [[maybe_unused]] const int moved = chdir("/");  // No directory is kept busy.
    [[maybe_unused]] const ssize_t told = write(write_end_, "r", 1);
    close(write_end_);
    write_end_ = -1;
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    struct stat err {};
    fstat(2, &err);
    if (isatty(2) == 0 && !S_ISFIFO(err.st_mode)) return;
    log_to_syslog(options_);  // A terminal goes its own way, a pipe's reader waits for its end.
    dup2(null, 2);
  }

 private:
  const Options& options_;
  int write_end_ = -1;
};

int watch_signals(EventLoop& loop, const std::function<void()>& hangup) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  loop.watch(fd, [&loop, fd, hangup] {
    signalfd_siginfo info{};
    if (read(fd, &info, sizeof info) != sizeof info) return false;
    if (info.ssi_signo == SIGHUP) {
      hangup();
    } else {
      loop.stop();
    }
    return true;
  });
  return fd;
}

int end_by_signals(EventLoop& loop) {
  return watch_signals(loop, [] {});
}

// SIGHUP: systemd is told what `state` says once it is done.
void read_again(Reload& reload, LockFs& fs, const std::string& state) {
  tell_systemd_of_reload();
  reload.run([&fs, state](bool changed) {
    if (changed) fs.take_limits();
    tell_systemd("READY=1\n" + state);
  });
}

tl::expected<std::map<std::string, std::unique_ptr<LockBackend>>, std::string> make_backends(
    const Options& options, EventLoop& loop) {
  std::map<std::string, std::unique_ptr<LockBackend>> backends;
  std::map<std::string, std::string> urls = {{"", options.source}};
  for (const auto& [name, space] : options.lockspaces) {
    if (!space.backend.empty()) urls[name] = space.backend;
  }
  for (const auto& [name, url] : urls) {
    auto made = make_backend(url, loop);
    if (made) {
      backends[name] = std::move(*made);
      continue;
    }
    if (name.empty()) return tl::make_unexpected(made.error());
    // It takes only its own lockspace with it.
    spdlog::error("{}; lockspace {} is out of reach until it is there", made.error(), name);
    const auto again = [url = url, &loop] { return make_backend(url, loop); };
    backends[name] = std::make_unique<LateBackend>(loop, url, again);
  }
  return backends;
}

int serve(Options& options, int argc, char** argv, Parent& parent, MountTurn& turn) {
  EventLoop loop;
  Reload reload(loop, argc, argv, options);
  std::function<void()> hangup;
  // Before any backend starts a thread.
  const int signals = watch_signals(loop, [&hangup] { hangup(); });
  const std::string place = shown_url(options.source) + " at " + options.mountpoint;
  tell_systemd("STATUS=joining the lockspaces of " + place);
  auto backends = make_backends(options, loop);
  if (!backends) {
    spdlog::error("{}", backends.error());
    return kFailed;
  }
  LockFs::Backends by_space;
  for (const auto& [name, backend] : *backends) by_space[name] = backend.get();
  LockFs fs(loop, options, by_space);
  Session session(loop, fs, options);
  int status = kOk;
  bool ready = false;
  hangup = [&] {
    if (ready) read_again(reload, fs, "STATUS=serving " + place);  // Else it has just been read.
  };
  session.on_ready([&](const std::optional<std::string>& refusal) {
    if (refusal) {
      spdlog::error("{}", *refusal);
      status = kFailed;
      return;
    }
    turn.end();
    spdlog::info("{} serves {}", options.mountpoint, shown_url(options.source));
    ready = true;
    tell_systemd("READY=1\nSTATUS=serving " + place);
    parent.tell_ready();
  });
  if (const auto refusal = session.read_options()) {
    spdlog::error("{}", *refusal);
    return kUsage;
  }
  const auto fail = [&](const std::string& words) {
    spdlog::error("{}", words);
    status = kFailed;
    loop.stop();
  };
  // Whoever sees the mount can use it.
  fs.when_joined([&](LockErrc result) {
    if (result != LockErrc::kOk) {
      return fail(shown_url(options.source) +
                  ": the lockspace default cannot be joined: " + make_error_code(result).message());
    }
    if (const auto failure = session.mount()) fail(*failure);
  });
  loop.run();
  tell_systemd("STOPPING=1\nSTATUS=unmounting " + options.mountpoint);
  close(signals);
  return status;
}

// What stands in the way of a mount there, in words; else it is our turn to mount there, the place
// is made absolute, and so is the config file: we leave this directory.
tl::expected<MountTurn, std::string> find_places(Options& options) {
  std::array<char, PATH_MAX> absolute{};
  struct stat place {};
  const std::string at = options.mountpoint;
  const bool by_descriptor = at.starts_with("/dev/fd/");
  // First of all, as it asks no daemon: one that is stopped would not answer.
  auto turn = by_descriptor ? MountTurn() : MountTurn::take(at);
  if (!turn) return turn;
  if (realpath(at.c_str(), absolute.data()) == nullptr) {
    return tl::make_unexpected(at + ": no such directory (or a dead mount: umount -l " + at + ")");
  }
  if (stat(absolute.data(), &place) != 0 && errno == ENOTCONN) {
    return tl::make_unexpected(at + ": a mount whose daemon is gone; umount -l it first");
  }
  // The kernel would mount a file as well.
  if (!S_ISDIR(place.st_mode)) {
    return tl::make_unexpected(at + ": a mountpoint is a directory, this is none");
  }
  if (!by_descriptor) options.mountpoint = absolute.data();
  // Its links stay: one of them may lead elsewhere when it is read again.
  if (!options.config.empty()) options.config = std::filesystem::absolute(options.config);
  return turn;
}

// All but the mount has been done, and is well, unless libfuse does not like its options.
int check_mount_options(const Options& options) {
  if (const auto refusal = refused_mount_options(options)) {
    spdlog::error("{}", *refusal);
    return kUsage;
  }
  if (options.check_config) std::cout << "all is well\n";
  return kOk;
}

int run(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "serve") {
    return serve_command(argc - 1, argv + 1, end_by_signals);
  }
  if (const auto text = printed_usage(argc, argv)) {
    std::cout << *text;
    return kOk;
  }
  auto options = parse_options(argc, argv);
  if (!options) {
    (options.error().is_help ? std::cout : std::cerr)
        << (options.error().is_help ? "" : "lockfs: ") << options.error().words << "\n";
    return options.error().is_help ? kOk : kUsage;
  }
  if (options->version) {
    std::cout << "lockfs " LOCKFS_VERSION "\n";
    return kOk;
  }
  set_up_log(*options);
  if (options->check_config || options->fake) return check_mount_options(*options);
  auto turn = find_places(*options);
  if (!turn) {
    std::cerr << "lockfs: " << turn.error() << "\n";
    return kFailed;
  }
  raise_descriptors();
  Parent parent(*options);
  return serve(*options, argc, argv, parent, *turn);
}

// mount(8) has codes of its own.
int code_for(CommandLine::Caller caller, int code) {
  constexpr int kMountUsage = 1;
  constexpr int kMountFailed = 32;
  if (caller == CommandLine::Caller::kUser || code == kOk) return code;
  return code == kUsage ? kMountUsage : kMountFailed;
}

}  // namespace
}  // namespace lockfs

int main(int argc, char** argv) {
  const auto caller = lockfs::caller_of(argc > 0 ? argv[0] : "");
  try {
    return lockfs::code_for(caller, lockfs::run(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "lockfs: " << error.what() << "\n";
    return lockfs::code_for(caller, lockfs::kFailed);
  }
}
