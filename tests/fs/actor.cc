// SPDX-License-Identifier: MIT
#include "tests/fs/actor.h"

#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace lockfs::test {
namespace {

std::array<Fd, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  return {Fd(ends[0]), Fd(ends[1])};
}

int error_of(int result) { return result < 0 ? errno : 0; }

void* idle(void* /*nothing*/) {
  while (true) pause();
}

}  // namespace

const char* name_of(Way way) {
  switch (way) {
    case Way::kFlock: return "Flock";
    case Way::kPosix: return "Posix";
    case Way::kOfd: return "Ofd";
    default: return "ModeString";
  }
}

int take(Way way, int fd, Want want) {
  const auto pick = [&](auto shared, auto exclusive, auto nothing) {
    return want == Want::kShared ? shared : want == Want::kExclusive ? exclusive : nothing;
  };
  switch (way) {
    case Way::kFlock: return flock_of(fd, pick(LOCK_SH, LOCK_EX, LOCK_UN));
    case Way::kPosix: return fcntl_of(fd, F_SETLKW, pick(F_RDLCK, F_WRLCK, F_UNLCK));
    case Way::kOfd: return fcntl_of(fd, F_OFD_SETLKW, pick(F_RDLCK, F_WRLCK, F_UNLCK));
    default: return write_command(fd, pick("PR", "EX", "UN"));
  }
}

/// What runs in the actor's process.
class Actor::Body {
 public:
  int act(const Order& order) {
    const int fd = order.file >= 0 && size_t(order.file) < files_.size()
                       ? files_.at(size_t(order.file)).get()
                       : -1;
    const char* text = order.text.data();
    switch (order.verb) {
      case Verb::kOpen:
        files_.emplace_back(::open(text, order.argument | O_CLOEXEC, 0666));
        return files_.back().valid() ? 0 : errno;
      case Verb::kClose: files_.at(size_t(order.file)).reset(); return 0;
      case Verb::kTake: return take(static_cast<Way>(order.argument), fd, order.want);
      case Verb::kWrite: return write_command(fd, text);
      case Verb::kFlock: return flock_of(fd, order.argument);
      case Verb::kBecome: return become(static_cast<uid_t>(order.argument));
      case Verb::kFork:
        keeper_ = std::make_unique<Child>([] {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          return pause();
        });
        return 0;
      case Verb::kForkEnds: keeper_.reset(); return 0;
      case Verb::kThread: {
        pthread_t thread{};
        return pthread_create(&thread, nullptr, idle, nullptr);
      }
      case Verb::kMkdir: return error_of(::mkdir(text, static_cast<mode_t>(order.argument)));
      case Verb::kUnlink: return error_of(::unlink(text));
      case Verb::kChmod: return error_of(::chmod(text, static_cast<mode_t>(order.argument)));
    }
    return ENOSYS;
  }

 private:
  static int become(uid_t uid) {
    if (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0) return errno;
    return 0;
  }

  std::vector<Fd> files_;
  std::unique_ptr<Child> keeper_;
};

Actor::Actor() {
  auto orders = make_pipe();
  auto answers = make_pipe();
  child_ = std::make_unique<Child>([&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    orders[1].reset();
    Body body;
    Order order;
    while (read(orders[0].get(), &order, sizeof(order)) == static_cast<ssize_t>(sizeof(order))) {
      const int result = body.act(order);
      if (::write(answers[1].get(), &result, sizeof(result)) < 0) return 1;
    }
    return 0;
  });
  orders_ = std::move(orders[1]);
  answers_ = std::move(answers[0]);
}

Actor::Order Actor::order(Verb verb, int file, int argument, const std::string& text) {
  Order made{verb, file, argument, Want::kNothing, {}};
  if (text.size() >= made.text.size()) throw std::runtime_error("too long for an order");
  std::memcpy(made.text.data(), text.data(), text.size());
  return made;
}

Actor::Order Actor::lock_order(Way way, int file, Want want) {
  Order made = order(Verb::kTake, file, static_cast<int>(way));
  made.want = want;
  return made;
}

void Actor::send(const Order& order) {
  const auto size = static_cast<ssize_t>(sizeof(order));
  EXPECT_EQ(::write(orders_.get(), &order, sizeof(order)), size);
}

std::optional<int> Actor::result(double seconds) {
  pollfd ready{answers_.get(), POLLIN, 0};
  int answer = 0;
  if (poll(&ready, 1, static_cast<int>(seconds * 1000)) != 1) return std::nullopt;
  if (read(answers_.get(), &answer, sizeof(answer)) != static_cast<ssize_t>(sizeof(answer))) {
    return std::nullopt;
  }
  return answer;
}

int Actor::ask(const Order& order) {
  send(order);
  return result().value_or(-1);
}

int Actor::open(const std::string& path, int flags) {
  return ask(order(Verb::kOpen, -1, flags, path));
}
int Actor::close(int file) { return ask(order(Verb::kClose, file)); }
int Actor::write(int file, const std::string& command) {
  return ask(order(Verb::kWrite, file, 0, command));
}
int Actor::flock(int file, int operation) { return ask(order(Verb::kFlock, file, operation)); }
int Actor::become(uid_t uid) { return ask(order(Verb::kBecome, -1, static_cast<int>(uid))); }
int Actor::fork() { return ask(order(Verb::kFork, -1)); }
int Actor::fork_ends() { return ask(order(Verb::kForkEnds, -1)); }
int Actor::add_thread() { return ask(order(Verb::kThread, -1)); }
int Actor::mkdir(const std::string& path, mode_t mode) {
  return ask(order(Verb::kMkdir, -1, static_cast<int>(mode), path));
}
int Actor::unlink(const std::string& path) { return ask(order(Verb::kUnlink, -1, 0, path)); }
int Actor::chmod(const std::string& path, mode_t mode) {
  return ask(order(Verb::kChmod, -1, static_cast<int>(mode), path));
}
void Actor::begin_write(int file, const std::string& command) {
  send(order(Verb::kWrite, file, 0, command));
}
void Actor::begin_flock(int file, int operation) { send(order(Verb::kFlock, file, operation)); }

}  // namespace lockfs::test
