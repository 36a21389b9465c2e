// SPDX-License-Identifier: MIT
#include "tests/chaos/worker.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <random>

#include "tests/chaos/chaos.h"
#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

enum class Way : uint8_t { kExclusiveOpen, kWrite, kFlock, kOfd, kPosix };
constexpr unsigned kWays = 5;

// Refusals that a request may get at any time here.
bool expected(bool opening, int error) {
  if (opening) return error == EEXIST;
  return error == EAGAIN || error == ETIMEDOUT || error == EINTR || error == EDEADLK;
}

class Worker {
 public:
  Worker(Table& table, Seat& seat, std::string directory, uint64_t seed, bool liar)
      : table_(table), seat_(seat), directory_(std::move(directory)), random_(seed), liar_(liar) {}

  int run() {
    while (!table_.end && seat_.count + 10 < Seat::kMost) step();
    while (!held_.empty()) release(0);
    return 0;
  }

 private:
  struct Held {
    int fd = -1;
    uint8_t lock = 0;
    Way way = Way::kWrite;
    Take take = Take::kNL;
    Grant* grant = nullptr;
  };

  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

  void step() {
    ++seat_.operations;
    const unsigned dice = below(10);
    if (held_.empty() || (held_.size() == 1 && dice < 2)) {
      acquire();
    } else if (dice < 5) {
      convert(held_[below(static_cast<unsigned>(held_.size()))]);
    } else {
      release(below(static_cast<unsigned>(held_.size())));
    }
    if (dice == 9) usleep(below(500));
    if (liar_ && below(50) == 0) lie();
  }

  // 0, or the errno of the request that asks for `take`.
  int ask(const Held& held, Take take) {
    const bool now = below(3) == 0;
    const bool exclusive = take == Take::kEX;
    if (held.way == Way::kFlock) {
      return flock(held.fd, (exclusive ? LOCK_EX : LOCK_SH) | (now ? LOCK_NB : 0)) == 0 ? 0 : errno;
    }
    if (held.way == Way::kOfd || held.way == Way::kPosix) {
      struct flock whole {};
      whole.l_type = exclusive ? F_WRLCK : F_RDLCK;
      const int wait = held.way == Way::kOfd ? F_OFD_SETLKW : F_SETLKW;
      const int no_wait = held.way == Way::kOfd ? F_OFD_SETLK : F_SETLK;
      return fcntl(held.fd, now ? no_wait : wait, &whole) == 0 ? 0 : errno;
    }
    std::string command = name_of(take);
    if (now) command += " try";
    if (!now && below(2) == 0) command += " timeout=" + std::to_string(1 + below(50)) + "ms";
    return write_command(held.fd, command);
  }

  // Modes that this way can ask for.
  Take choose(Way way) {
    if (way == Way::kExclusiveOpen || way == Way::kWrite) {
      return static_cast<Take>(below(kTakes));
    }
    return below(2) == 0 ? Take::kPR : Take::kEX;
  }

  void acquire() {
    Held held;
    held.lock = static_cast<uint8_t>(below(kLockNames.size()));
    if (std::any_of(held_.begin(), held_.end(),
                    [&](const Held& other) { return other.lock == held.lock; })) {
      return;  // A second descriptor of our own would wait for ourselves.
    }
    held.way = static_cast<Way>(below(kWays));
    const bool by_open = held.way == Way::kExclusiveOpen;
    held.take = by_open ? Take::kEX : choose(held.way);
    const std::string path = directory_ + "/" + kLockNames.at(held.lock);
    held.fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (by_open ? O_EXCL : 0), 0666);
    if (held.fd < 0) return refused(by_open, errno);
    const int error = by_open ? 0 : ask(held, held.take);
    if (error == 0) {
      granted(held, false);
      held_.push_back(held);
    } else {
      refused(false, error);
      close(held.fd);
    }
  }

  void convert(Held& held) {
    const Take take = choose(held.way);
    if ((take == Take::kSlot) != (held.take == Take::kSlot)) return;
    held.grant->to = monotonic();
    const int error = ask(held, take);
    if (error == 0) {
      const bool goes_on = takes_token(held.take) && takes_token(take);
      held.take = take;
      return granted(held, goes_on);
    }
    refused(false, error);
    if (held.way == Way::kFlock) {
      // flock(2): what was held may be gone.
      close(held.fd);
      held_.erase(held_.begin() + (&held - held_.data()));
    } else {
      held.grant->to = 0;  // The old mode was held all the time, and is.
    }
  }

  void release(size_t index) {
    const Held held = held_[index];
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(index));
    held.grant->to = monotonic();
    if (below(2) == 0) unlock(held);
    close(held.fd);
  }

  static void unlock(const Held& held) {
    struct flock whole {};
    whole.l_type = F_UNLCK;
    switch (held.way) {
      case Way::kFlock: flock(held.fd, LOCK_UN); break;
      case Way::kOfd: fcntl(held.fd, F_OFD_SETLK, &whole); break;
      case Way::kPosix: fcntl(held.fd, F_SETLK, &whole); break;
      default: write_command(held.fd, "UN"); break;
    }
  }

  void granted(Held& held, bool goes_on) {
    Grant& grant = seat_.grants.at(seat_.count);
    grant = {};
    grant.from = monotonic();
    grant.process = getpid();
    grant.lock = held.lock;
    grant.take = held.take;
    grant.goes_on = goes_on;
    ++seat_.count;  // From here on a kill leaves it held.
    held.grant = &grant;
    std::array<char, 32> token{};
    if (fgetxattr(held.fd, "user.lockfs.token", token.data(), token.size() - 1) > 0) {
      grant.token = std::strtoull(token.data(), nullptr, 10);
    }
  }

  void refused(bool opening, int error) {
    if (!expected(opening, error)) seat_.strange = error;
    if (error > 0 && error < 256) ++seat_.refused.at(static_cast<size_t>(error));
  }

  void lie() {
    Grant& grant = seat_.grants.at(seat_.count);
    grant = {};
    grant.from = monotonic();
    grant.take = Take::kEX;
    grant.process = getpid();
    usleep(2000);
    grant.to = monotonic();
    ++seat_.count;
  }

  Table& table_;
  Seat& seat_;
  std::string directory_;
  std::mt19937_64 random_;
  bool liar_;
  std::vector<Held> held_;
};

}  // namespace

int work(Table& table, Seat& seat, const std::string& directory, uint64_t seed, bool liar) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // A test that is killed leaves no workers.
  return Worker(table, seat, directory, seed, liar).run();
}

}  // namespace lockfs::test
