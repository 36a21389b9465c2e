// SPDX-License-Identifier: MIT
// Random processes on three mounts of one server, while networks, mounts and the server break at
// random: no two hold what does not go together, unless the first was told before that its lock is
// lost; tokens rise; and when all is well again, everybody gets on.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <map>
#include <random>

#include "tests/chaos/chaos.h"
#include "tests/chaos/history.h"
#include "tests/faults/remote.h"

namespace lockfs::test {
namespace {

using testing::IsEmpty;

constexpr size_t kNodes = 3;
constexpr size_t kWorkers = 6;  ///< Two on each node.
constexpr std::array kNames = {"a", "b", "c"};

/// What one worker after the other writes down, in memory shared with the test.
struct Notes {
  static constexpr size_t kMost = 400000;
  std::array<Grant, kMost> grants;
  std::atomic<size_t> count;
  std::atomic<uint64_t> operations;
  std::atomic<uint64_t> losses;
  std::atomic<int64_t> converting;  ///< Since when the last grant may be another one; 0: it is not.
  std::array<std::atomic<uint64_t>, 256> refused;
};
struct Book {
  std::array<Notes, kWorkers> notes;
  std::atomic<bool> end;
};

/// Takes, converts and gives up one lock after the other, until the end.
class RemoteWorker {
 public:
  RemoteWorker(Book& book, Notes& notes, std::string directory, uint64_t seed)
      : book_(book), notes_(notes), directory_(std::move(directory)), random_(seed) {}

  int run() {
    while (!book_.end && notes_.count + 10 < Notes::kMost) once();
    return 0;
  }

 private:
  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  Take any_mode() { return static_cast<Take>(1 + below(6)); }

  void once() {
    ++notes_.operations;
    const auto lock = static_cast<uint8_t>(below(kNames.size()));
    const std::string path = directory_ + "/" + kNames.at(lock);
    const bool by_open = below(4) == 0;
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (by_open ? O_EXCL : 0), 0666);
    if (fd < 0) {
      refused(errno);
      usleep(1000);
      return;
    }
    const Take take = by_open ? Take::kEX : any_mode();
    const int error = by_open ? 0 : write_command(fd, command(take));
    if (error != 0) {
      refused(error);
    } else {
      hold(fd, lock, take);
    }
    close(fd);
  }

  std::string command(Take take) {
    const std::string name = name_of(take);
    const unsigned dice = below(4);
    if (dice == 0) return name + " try";
    if (dice == 1) return name + " timeout=" + std::to_string(1 + below(50)) + "ms";
    return dice == 2 ? name : name + " timeout=5s";
  }

  void hold(int fd, uint8_t lock, Take take) {
    Grant* grant = note(fd, lock, take, false);
    for (unsigned i = below(3); !is_lost(fd, *grant); --i) {
      if (i == 0) {
        grant->to = monotonic();
        if (below(2) == 0) write_command(fd, "UN");
        return;
      }
      const Take next = any_mode();
      const int64_t asked = monotonic();
      notes_.converting = asked;
      const int error = write_command(fd, command(next));
      if (error == 0) {
        grant->to = asked;
        grant = note(fd, lock, next, takes_token(take) && takes_token(next));
        take = next;
      } else {
        refused(error);
      }
      if (error == ESTALE) {
        grant->to = asked;
        lost();
      }
      notes_.converting = 0;
      if (error == ESTALE) return;
    }
  }

  // Holds it a while; true if it was told meanwhile that it is lost.
  bool is_lost(int fd, Grant& grant) {
    pollfd state{fd, 0, 0};
    const unsigned dice = below(100);
    const unsigned time = dice == 0 ? below(3000) : dice < 4 ? below(200) : below(5);
    const int events = poll(&state, 1, static_cast<int>(time));
    if (events <= 0) return false;
    grant.to = monotonic();
    lost();
    return true;
  }
  void lost() { ++notes_.losses; }

  Grant* note(int fd, uint8_t lock, Take take, bool goes_on) {
    Grant& grant = notes_.grants.at(notes_.count);
    grant = {};
    grant.from = monotonic();
    grant.process = getpid();
    grant.lock = lock;
    grant.take = take;
    grant.goes_on = goes_on;
    ++notes_.count;
    std::array<char, 32> token{};
    if (fgetxattr(fd, "user.lockfs.token", token.data(), token.size() - 1) > 0) {
      grant.token = std::strtoull(token.data(), nullptr, 10);
    }
    return &grant;
  }

  void refused(int error) {
    if (error > 0 && error < 256) ++notes_.refused.at(static_cast<size_t>(error));
  }

  Book& book_;
  Notes& notes_;
  std::string directory_;
  std::mt19937_64 random_;
};

class RemoteHistory : public testing::TestWithParam<std::string> {
 protected:
  RemoteHistory() {
    for (size_t i = 0; i < kNodes; ++i) {
      networks_.push_back(std::make_unique<Proxy>(remote_->port()));
      nodes_.emplace_back();
      mount(i);
    }
    for (size_t i = 0; i < kWorkers; ++i) start(i);
  }
  ~RemoteHistory() override {
    for (auto& worker : workers_) worker.reset();
    nodes_.clear();
  }

  void mount(size_t i) {
    nodes_.at(i).reset();
    const std::string source = remote_->source(networks_.at(i)->port());
    nodes_.at(i) = std::make_unique<Mount>(std::vector<std::string>{}, source);
  }

  void start(size_t worker) {
    const uint64_t seed = random_();
    workers_.at(worker) =
        std::make_unique<Child>([&, worker, seed, at = nodes_.at(worker % kNodes)->path()] {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          return RemoteWorker(*book_, book_->notes.at(worker), at + "/default", seed).run();
        });
  }

  // Whatever a node's workers hold, they can be told nothing of it any more from now on.
  void nobody_can_tell(size_t node, int64_t when, bool killed = false) {
    for (size_t worker = node; worker < kWorkers; worker += kNodes) {
      Notes& notes = book_->notes.at(worker);
      for (size_t i = notes.count; i > 0 && i + 50 > notes.count; --i) {
        Grant& grant = notes.grants.at(i - 1);
        const int64_t sure = killed && notes.converting != 0 ? notes.converting.load() : when;
        if (grant.from < when && (grant.to == 0 || grant.to > when)) cut_.push_back({&grant, sure});
      }
    }
  }

  void wait_for(double leases) const {
    usleep(static_cast<useconds_t>(leases * remote_->lease() * 1e6));
  }
  double between(double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(random_);
  }

  // One thing breaks, and is mended.
  void disturb() {
    const size_t node = random_() % kNodes;
    Proxy& network = *networks_.at(node);
    const auto dice = random_() % 12;
    ++faults_.at(dice);
    switch (dice) {
      case 0: freeze(node); break;
      case 1: kill_mount(node); break;
      case 2:
        if (!remote_->survives_restart()) break;
        remote_->kill();
        wait_for(between(0, 0.3));
        remote_->start();
        break;
      case 3:
        remote_->signal(SIGSTOP);
        wait_for(between(0, 0.7));
        remote_->signal(SIGCONT);
        break;
      case 4:
      case 5:
        network.part(true);
        wait_for(dice == 4 ? between(1.2, 1.5) : between(0, 0.4));
        network.part(false);
        break;
      case 6:
      case 7:
        network.mute(true);
        wait_for(between(0, 0.1));
        cut(node);
        network.mute(false);
        break;
      case 8:
        network.slow(static_cast<int>(random_() % 60));
        wait_for(between(0, 0.3));
        network.slow(0);
        break;
      default: cut(node); break;
    }
    wait_for(between(0, 0.3));
  }

  // Who is told of it first, the server or the mount, is chance.
  void cut(size_t node) {
    const int64_t when = monotonic();
    networks_.at(node)->cut();
    if (remote_->frees_at_disconnect()) nobody_can_tell(node, when);
  }

  void freeze(size_t node) {
    kill(nodes_.at(node)->daemon(), SIGSTOP);
    const int64_t when = monotonic();
    wait_for(1.7);
    nobody_can_tell(node, when);
    kill(nodes_.at(node)->daemon(), SIGCONT);
  }

  void kill_mount(size_t node) {
    const int64_t when = monotonic();
    kill(nodes_.at(node)->daemon(), SIGKILL);
    for (size_t worker = node; worker < kWorkers; worker += kNodes) {
      workers_.at(worker)->signal(SIGKILL);
      workers_.at(worker)->wait();
    }
    nobody_can_tell(node, when, true);
    mount(node);
    for (size_t worker = node; worker < kWorkers; worker += kNodes) {
      book_->notes.at(worker).converting = 0;
      start(worker);
    }
  }

  std::vector<Grant> history() {
    for (const auto& [grant, when] : cut_) {
      if (grant->to == 0 || grant->to > when) grant->to = when;
    }
    std::vector<Grant> all;
    for (const Notes& notes : book_->notes) {
      all.insert(all.end(), notes.grants.begin(), notes.grants.begin() + notes.count);
    }
    return all;
  }

  void report() {
    uint64_t operations = 0;
    uint64_t losses = 0;
    std::map<std::string, uint64_t> refused;
    for (const Notes& notes : book_->notes) {
      operations += notes.operations;
      losses += notes.losses;
      for (size_t i = 0; i < notes.refused.size(); ++i) {
        if (notes.refused.at(i) != 0)
          refused[strerrorname_np(static_cast<int>(i))] += notes.refused.at(i);
      }
    }
    uint64_t faults = 0;
    for (const uint64_t count : faults_) faults += count;
    std::cout << GetParam() << ", seed " << seed_ << ": " << operations << " operations, "
              << history().size() << " grants, " << faults << " faults, " << losses
              << " losses told; refused:";
    for (const auto& [name, count] : refused) std::cout << " " << name << " " << count;
    std::cout << "\n";
  }

  uint64_t seed_ = setting("LOCKFS_CHAOS_SEED", static_cast<uint64_t>(monotonic()));
  std::mt19937_64 random_{seed_};
  Shared<Book> book_;
  std::unique_ptr<Remote> remote_ = make_remote(GetParam(), 2);
  std::vector<std::unique_ptr<Proxy>> networks_;
  std::vector<std::unique_ptr<Mount>> nodes_;
  std::array<std::unique_ptr<Child>, kWorkers> workers_;
  std::vector<std::pair<Grant*, int64_t>> cut_;
  std::array<uint64_t, 12> faults_{};
};
INSTANTIATE_TEST_SUITE_P(Servers, RemoteHistory, testing::ValuesIn(remote_names()),
                         [](const auto& server) { return server.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RemoteHistory);

TEST_P(RemoteHistory, OfRandomFaultsIsThatOfALockManager) {
  const auto seconds = static_cast<double>(setting("LOCKFS_CHAOS_SECONDS", 30));
  const int64_t end = monotonic() + static_cast<int64_t>(seconds * 1e9);
  while (monotonic() < end) disturb();
  // All is well again: whoever waits gets on.
  std::array<size_t, kWorkers> before{};
  for (size_t i = 0; i < kWorkers; ++i) before.at(i) = book_->notes.at(i).count;
  for (size_t i = 0; i < kWorkers; ++i) {
    EXPECT_TRUE(eventually([&] { return book_->notes.at(i).count > before.at(i) + 3; }, 20))
        << "worker " << i << " of " << nodes_.at(i % kNodes)->path() << "\n"
        << nodes_.at(i % kNodes)->log()
        << slurp(nodes_.at(i % kNodes)->path() + "/.lockfs/locks.json");
  }
  book_->end = true;
  for (const auto& worker : workers_) EXPECT_EQ(worker->wait(), 0);
  report();
  EXPECT_THAT(violations(history()), IsEmpty()) << "seed " << seed_;
  EXPECT_GT(history().size(), 300U);
}

}  // namespace
}  // namespace lockfs::test
