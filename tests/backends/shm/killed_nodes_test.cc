// SPDX-License-Identifier: MIT
// Nodes that are killed at random, all the time and under load. Each keeps in common memory what it
// believes to hold, and looks whether any other that lives believes something that cannot be.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <thread>

#include "backends/shm/shared_segment.h"
#include "tests/backends/shm/segment_file.h"
#include "tests/support/mount.h"

namespace lockfs::shm::test {
namespace {

constexpr size_t kWorkers = 4;
constexpr size_t kNames = 3;

// What the workers believe: a mode and a pid, in one word each.
struct Beliefs {
  std::array<std::array<std::atomic<uint64_t>, kNames>, kWorkers> held;
  std::array<std::atomic<uint64_t>, kNames> token;
  std::atomic<uint64_t> grants;
  std::atomic<uint64_t> waits;
  std::atomic<uint64_t> retaken;
};

// A process whose end has begun believes nothing; its files are closed before it is gone.
bool is_dying(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return true;
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  std::string state;
  unsigned flags = 0;
  int skip = 0;
  rest >> state >> skip >> skip >> skip >> skip >> skip >> flags;
  constexpr unsigned kExiting = 4;  // PF_EXITING
  return state == "Z" || state == "X" || (flags & kExiting) != 0;
}

class Worker {
 public:
  Worker(const std::string& path, size_t self, Beliefs& beliefs, unsigned seed)
      : self_(self), beliefs_(beliefs), random_(seed) {
    auto opened = SharedSegment::open(path, std::nullopt);
    if (!opened) fail(opened.error());
    segment_ = std::move(*opened);
  }

  [[noreturn]] void run() {
    while (true) step();
  }

 private:
  size_t pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  [[noreturn]] static void fail(const std::string& why) {
    fprintf(stderr, "worker: %s\n", why.c_str());
    _exit(1);
  }

  template <typename Change>
  void change(Change make) {
    while (!segment_->enter()) std::this_thread::yield();
    make(segment_->locks());
    segment_->leave();
  }

  void step() {
    const size_t name = pick(kNames);
    const auto mode = static_cast<Mode>(1 + pick(5));
    std::optional<LockSegment::Place> place;
    auto turn = LockSegment::Turn::kRefused;
    const std::string word = std::string(1, static_cast<char>('a' + name));
    const bool now = pick(2) == 0;
    change([&](LockSegment& locks) {
      turn = locks.acquire(segment_->self(), "space", word, mode, now, place, segment_->wake());
    });
    if (turn == LockSegment::Turn::kWaits && !wait(*place)) return;
    if (turn == LockSegment::Turn::kWaits || turn == LockSegment::Turn::kGranted) {
      hold(name, *place, mode);
      for (Mode kept = mode; pick(2) == 0 && take_again(name, *place, kept);) {
      }
      if (pick(4) == 0) convert(name, place);
      believe(name, Mode::kNL);
      change(
          [&](LockSegment& locks) { locks.release(segment_->self(), *place, segment_->wake()); });
    }
    bool dead = false;
    if (pick(4) == 0) dead = segment_->any_dead();
    if (dead) change([&](LockSegment& /*locks*/) { segment_->bury_dead(); });
  }

  // Until it is granted, or a while; a death may have taken the bell with it, so we look.
  bool wait(LockSegment::Place place) {
    beliefs_.waits.fetch_add(1);
    for (int i = 0; i < 50; ++i) {
      if (!segment_->locks().claim(segment_->self(), place).waits()) return true;
      std::this_thread::yield();
    }
    bool cancelled = false;
    change([&](LockSegment& locks) {
      cancelled = locks.cancel(segment_->self(), place, segment_->wake());
    });
    return !cancelled;
  }

  void hold(size_t name, LockSegment::Place place, Mode mode, bool fresh = true) {
    beliefs_.grants.fetch_add(1);
    believe(name, mode);
    for (size_t other = 0; other < kWorkers; ++other) {
      const uint64_t belief = beliefs_.held[other][name].load();
      const auto theirs = static_cast<Mode>(belief & 7U);
      if (other == self_ || compatible(mode, theirs)) continue;
      if (is_dying(static_cast<pid_t>(belief >> 3U))) continue;
      if (beliefs_.held[other][name].load() != belief) continue;  // It has just let it go.
      fail("two hold one lock");
    }
    if (!is_exclusive(mode) || !fresh) return;  // A retaken one has the tokens that it had.
    const uint64_t token = segment_->locks().tokens(place).next;
    if (beliefs_.token[name].exchange(token) >= token) fail("a token that does not grow");
  }

  void convert(size_t name, std::optional<LockSegment::Place> place) {
    const auto mode = static_cast<Mode>(1 + pick(5));
    believe(name, Mode::kNL);  // A conversion may go down, and is believed when it is done.
    auto turn = LockSegment::Turn::kRefused;
    const std::string word = std::string(1, static_cast<char>('a' + name));
    change([&](LockSegment& locks) {
      turn = locks.acquire(segment_->self(), "space", word, mode, true, place, segment_->wake());
    });
    if (turn == LockSegment::Turn::kGranted) hold(name, *place, mode);
  }

  // Keeps it without holding it, and takes it again unless another was faster.
  bool take_again(size_t name, LockSegment::Place place, Mode mode) {
    LockSegment& locks = segment_->locks();
    believe(name, Mode::kNL);
    if (!locks.keep(segment_->self(), place)) return believe(name, mode), false;
    if (pick(4) == 0) std::this_thread::yield();
    if (!locks.retake(segment_->self(), place, mode, mode)) return false;
    beliefs_.retaken.fetch_add(1);
    hold(name, place, mode, false);
    return true;
  }

  void believe(size_t name, Mode mode) {
    beliefs_.held[self_][name].store(static_cast<uint64_t>(getpid()) << 3U |
                                     static_cast<uint64_t>(mode));
  }

  size_t self_;
  Beliefs& beliefs_;
  std::mt19937 random_;
  std::unique_ptr<SharedSegment> segment_;
};

int kills() {
  const char* wanted = getenv("LOCKFS_KILLS");
  if (wanted != nullptr) return atoi(wanted);
  return lockfs::test::kSanitized ? 500 : 10000;
}

TEST(KilledNodes, LeaveNoWrongGrantAndNothingBehind) {
  const SegmentFile file;
  auto segment = SharedSegment::open(file.path(), 64);
  ASSERT_TRUE(segment) << segment.error();
  void* memory =
      mmap(nullptr, sizeof(Beliefs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& beliefs = *new (memory) Beliefs{};
  std::mt19937 random(3);
  const auto start = [&](size_t i) {
    const auto seed = static_cast<unsigned>(random());
    const pid_t pid = fork();
    if (pid == 0) Worker(file.path(), i, beliefs, seed).run();
    return pid;
  };
  std::array<pid_t, kWorkers> workers{};
  for (size_t i = 0; i < kWorkers; ++i) workers[i] = start(i);
  int left = kills();
  for (; left > 0; --left) {
    const size_t i = random() % kWorkers;
    usleep(static_cast<useconds_t>(random() % 1000));  // When a kill comes is chance.
    kill(workers[i], SIGKILL);
    int status = 0;
    waitpid(workers[i], &status, 0);
    if (!WIFSIGNALED(status)) break;  // It has ended by itself, and said why.
    workers[i] = start(i);
  }
  EXPECT_EQ(left, 0) << "a worker found something wrong";
  for (const pid_t worker : workers) {
    kill(worker, SIGKILL);
    waitpid(worker, nullptr, 0);
  }
  while (!(*segment)->enter()) std::this_thread::yield();
  (*segment)->bury_dead();
  EXPECT_FALSE((*segment)->any_dead());
  const auto wrong = (*segment)->locks().check();
  EXPECT_FALSE(wrong) << *wrong;
  EXPECT_TRUE((*segment)->locks().look_all((*segment)->self(), "space").empty());
  (*segment)->leave();
  printf("%d kills, %lu grants, %lu waits, %lu retaken\n", kills(), beliefs.grants.load(),
         beliefs.waits.load(), beliefs.retaken.load());
  munmap(memory, sizeof(Beliefs));
}

}  // namespace
}  // namespace lockfs::shm::test
