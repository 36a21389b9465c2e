// SPDX-License-Identifier: MIT
// Measures what mounts share, beside memory: and beside the raw locks that the kernel and the C
// library offer, in turn, in one run: shared_bench LOCKFS NULL_FS [ROUNDS [CYCLES]]
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/bench.h"

namespace lockfs::bench {
namespace {

constexpr int kHandOvers = 2000;

// One lock as two processes take it, each by its own means.
struct Lock {
  std::function<void(int process)> open;
  std::function<void()> take;
  std::function<void()> give;
};

struct Shared {
  std::array<std::atomic<bool>, 2> asks;
  std::atomic<int64_t> released;  ///< Nanoseconds of the steady clock.
  std::array<double, kHandOvers> times;
  std::atomic<int> count;
  pthread_mutex_t mutex;
};

Shared* shared_memory() {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  auto* shared = new (memory) Shared{};
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->mutex, &attr);
  return shared;
}

int64_t now() { return Clock::now().time_since_epoch().count(); }

// The one that holds lets go when the other has asked and is certainly asleep; from there to its
// grant is one hand-over.
void take_turns(Shared& shared, const Lock& lock, size_t self) {
  lock.open(static_cast<int>(self));
  while (true) {
    shared.asks[self] = true;
    lock.take();
    const int64_t taken = now();
    shared.asks[self] = false;
    const int64_t released = shared.released;
    if (shared.count >= kHandOvers) break;
    if (released != 0) {
      shared.times[static_cast<size_t>(shared.count++)] =
          static_cast<double>(taken - released) / 1000;
    }
    while (!shared.asks[1 - self] && shared.count < kHandOvers) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    shared.released = now();
    lock.give();
  }
  shared.asks[self] = true;
  lock.give();
}

std::vector<double> hand_over(Shared& shared, const Lock& lock) {
  shared.count = 0;
  shared.released = 0;
  for (auto& asks : shared.asks) asks = false;
  std::vector<pid_t> children;
  for (const size_t self : {size_t{0}, size_t{1}}) {
    const pid_t child = fork();
    if (child == 0) {
      take_turns(shared, lock, self);
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) std::exit(1);
  }
  return {shared.times.begin(), shared.times.end()};
}

Lock by_mount(std::array<std::string, 2> dirs) {
  auto fd = std::make_shared<int>(-1);
  return {[=](int process) {
            const std::string name = dirs.at(static_cast<size_t>(process)) + "/hand-over";
            *fd = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
          },
          [=] {
            if (write(*fd, "EX", 2) != 2) die("write EX");
          },
          [=] {
            if (write(*fd, "UN", 2) != 2) die("write UN");
          }};
}

Lock by_fcntl(const std::string& file) {
  auto fd = std::make_shared<int>(-1);
  const auto set = [fd](short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_len = 1;
    if (fcntl(*fd, F_OFD_SETLKW, &lock) != 0) die("fcntl");
  };
  return {[=](int) { *fd = open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666); },
          [=] { set(F_WRLCK); }, [=] { set(F_UNLCK); }};
}

Lock by_mutex(Shared& shared) {
  return {[](int) {}, [&] { pthread_mutex_lock(&shared.mutex); },
          [&] { pthread_mutex_unlock(&shared.mutex); }};
}

void print_row(const char* name, const std::vector<double>& times, double round_trip) {
  std::printf("%-28s %8.1f %8.1f %12.1f\n", name, median(times), percentile(times, 0.99),
              median(times) / round_trip);
}

// The shortest request there is: a write that is answered at once.
double fuse_round_trip(const Served& floor, int cycles) {
  const std::string name = floor.dir + "/bench";
  const int fd = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  std::vector<double> times;
  for (int i = 0; i < cycles; ++i) {
    const auto begin = Clock::now();
    if (write(fd, "UN", 2) != 2) die("write");
    times.push_back(micros(Clock::now() - begin));
  }
  close(fd);
  return median(times);
}

double raw_cycle(const Lock& lock, int cycles) {
  lock.open(0);
  const auto begin = Clock::now();
  for (int i = 0; i < cycles; ++i) {
    lock.take();
    lock.give();
  }
  return micros(Clock::now() - begin) / cycles;
}

struct Sources {
  std::string segment = "lockfs-bench-" + std::to_string(getpid());
  std::string directory = "/tmp/lockfs-bench-dir-" + std::to_string(getpid());
  Sources() { std::filesystem::create_directory(directory); }
  ~Sources() {
    std::filesystem::remove_all(directory);
    unlink(("/dev/shm/" + segment).c_str());
  }
  Sources(const Sources&) = delete;
  Sources& operator=(const Sources&) = delete;
};

int run(int argc, char** argv) {
  if (argc < 3) return 2;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 7;
  const int cycles = argc > 4 ? std::atoi(argv[4]) : 4000;
  const Sources sources;
  const auto mount = [&](const std::string& source) {
    return std::make_unique<Served>(Words{argv[1], "-f", source}, "/default");
  };
  const std::string shm = "shm:" + sources.segment;
  const std::string file = "file:" + sources.directory;
  const auto memory = mount("memory:");
  const std::array<std::unique_ptr<Served>, 2> shms = {mount(shm), mount(shm)};
  const std::array<std::unique_ptr<Served>, 2> files = {mount(file), mount(file)};
  Shared& shared = *shared_memory();

  std::printf("\nuncontended, two mounts each: microseconds a cycle, median of %d rounds in turn\n",
              rounds);
  std::printf("%-16s %8s %8s %6s %8s %6s\n", "way", "memory:", "shm:", "ratio", "file:", "ratio");
  for (const Row& row : ways()) {
    std::array<std::vector<double>, 5> all;
    for (int i = 0; i < rounds; ++i) {
      all[0].push_back(measure(row.way, memory->dir, cycles, -1));
      all[1].push_back(measure(row.way, shms[0]->dir, cycles, -1));
      all[2].push_back(all[1].back() / all[0].back());
      all[3].push_back(measure(row.way, files[0]->dir, cycles, -1));
      all[4].push_back(all[3].back() / all[0].back());
    }
    std::printf("%-16s %8.1f %8.1f %6.2f %8.1f %6.2f\n", row.name, median(all[0]), median(all[1]),
                median(all[2]), median(all[3]), median(all[4]));
  }
  const std::string raw = sources.directory + "/raw";
  std::printf("raw: robust mutex %.3f, fcntl on the same filesystem %.3f\n",
              raw_cycle(by_mutex(shared), 1000000), raw_cycle(by_fcntl(raw), 100000));

  double round_trip = 0;
  {
    const Served floor({argv[2]}, "");
    round_trip = fuse_round_trip(floor, 20000);
  }
  std::printf("\nhand-over between two processes that sleep: microseconds, %d of them\n",
              kHandOvers);
  std::printf("%-28s %8s %8s %12s\n", "", "median", "p99", "round trips");
  std::printf("%-28s %8.1f\n", "a FUSE round trip (null_fs)", round_trip);
  const std::string m = memory->dir;
  print_row("memory:, one mount", hand_over(shared, by_mount({m, m})), round_trip);
  print_row("shm:, two mounts", hand_over(shared, by_mount({shms[0]->dir, shms[1]->dir})),
            round_trip);
  print_row("file:, two mounts", hand_over(shared, by_mount({files[0]->dir, files[1]->dir})),
            round_trip);
  print_row("robust mutex", hand_over(shared, by_mutex(shared)), round_trip);
  print_row("fcntl", hand_over(shared, by_fcntl(raw)), round_trip);
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
