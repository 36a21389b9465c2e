// SPDX-License-Identifier: MIT
// Measures a lockfs mount beside the floor (null_fs), in turn, in one run: mount_bench LOCKFS
// NULL_FS
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/bench.h"

namespace lockfs::bench {
namespace {

void place(pid_t pid, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (size_t i = 0; i < std::thread::hardware_concurrency(); ++i) {
    if (core < 0 || i == static_cast<size_t>(core)) CPU_SET(i, &set);
  }
  sched_setaffinity(pid, sizeof set, &set);
}

struct Placement {
  const char* name;
  int caller;
  int daemon;
};
constexpr Placement kPlacements[] = {{"free", -1, -1}, {"two cores", 0, 1}, {"one core", 0, 0}};

void cycles_beside_the_floor(const Words& lockfs, const Words& null_fs, const char* title,
                             int rounds, int cycles) {
  Served floor(null_fs, "");
  Served real(lockfs, "/default");
  std::printf("\n%s: microseconds a cycle, median of %d rounds in turn\n", title, rounds);
  std::printf("%-16s %-10s %8s %8s %6s\n", "way", "placement", "floor", "lockfs", "ratio");
  for (const Row& row : ways()) {
    for (const Placement& at : kPlacements) {
      place(floor.pid, at.daemon);
      place(real.pid, at.daemon);
      std::vector<double> a;
      std::vector<double> b;
      std::vector<double> ratio;
      for (int i = 0; i < rounds; ++i) {
        a.push_back(measure(row.way, floor.dir, cycles, at.caller));
        b.push_back(measure(row.way, real.dir, cycles, at.caller));
        ratio.push_back(b.back() / a.back());
      }
      std::printf("%-16s %-10s %8.1f %8.1f %6.2f\n", row.name, at.name, median(a), median(b),
                  median(ratio));
    }
  }
}

// From UN of the holder to write(2) returning in the next waiter, with `waiters` in the queue.
void hand_over(const std::string& dir, int waiters, int hand_overs) {
  const std::string name = dir + "/hand-over";
  Clock::time_point
      released{};  // Written by the holder before UN, read by the next: ordered by the lock.
  int left = hand_overs;
  std::vector<double> times;
  std::vector<std::thread> threads;
  const int first = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  if (write(first, "EX", 2) != 2) die("write");
  for (int i = 0; i <= waiters; ++i) {
    threads.emplace_back([&] {
      const int fd = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
      for (bool more = true; more;) {
        if (write(fd, "EX", 2) != 2) die("write EX");
        const auto now = Clock::now();
        more = left > 0;
        if (more && released != Clock::time_point{}) {
          times.push_back(micros(now - released));
          --left;
        }
        released = Clock::now();
        if (write(fd, "UN", 2) != 2) die("write UN");
      }
      close(fd);
    });
  }
  // All must be in the queue before the first release.
  const std::string info = name;
  for (std::string text;
       text.find("waiters_total: " + std::to_string(waiters + 1)) == std::string::npos;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::ifstream file(info);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  if (write(first, "UN", 2) != 2) die("write");
  for (std::thread& thread : threads) thread.join();
  close(first);
  std::printf("%8d %10.1f %10.1f\n", waiters, median(times), percentile(times, 0.99));
}

void flock_command(const std::string& dir) {
  std::vector<double> there;
  std::vector<double> here;
  for (int i = 0; i < 300; ++i) {
    there.push_back(run_command({"/usr/bin/flock", "/tmp/lockfs-bench-x", "/bin/true"}));
    here.push_back(run_command({"/usr/bin/flock", dir + "/x", "/bin/true"}));
  }
  unlink("/tmp/lockfs-bench-x");
  std::printf("\nflock FILE true: %.0f us on /tmp, %.0f us on the mount, ratio %.2f\n",
              median(there), median(here), median(here) / median(there));
}

double cpu_nanoseconds(pid_t pid) {
  double spent = 0;
  std::ifstream("/proc/" + std::to_string(pid) + "/schedstat") >> spent;
  return spent;
}

void idle_and_start(const std::string& lockfs) {
  Served real({lockfs, "-f", "memory:"}, "/default");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const double before = cpu_nanoseconds(real.pid);
  std::this_thread::sleep_for(std::chrono::seconds(3));
  std::printf("\nidle: %.0f ns of CPU in 3 s\n", cpu_nanoseconds(real.pid) - before);
  std::vector<double> starts;
  for (int i = 0; i < 20; ++i) {
    std::string dir = "/tmp/lockfs-bench-XXXXXX";
    if (mkdtemp(dir.data()) == nullptr) die("mkdtemp");
    starts.push_back(run_command({lockfs, "memory:", dir}));
    umount2(dir.c_str(), 0);
    rmdir(dir.c_str());
  }
  std::printf("start to ready: %.1f ms median, %.1f ms at most, of 20\n", median(starts) / 1000,
              percentile(starts, 1) / 1000);
}

int run(int argc, char** argv) {
  if (argc < 3) return 2;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string lockfs = argv[1];
  const Words null_fs = {argv[2]};
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 7;
  const int cycles = argc > 4 ? std::atoi(argv[4]) : 4000;
  cycles_beside_the_floor({lockfs, "-f", "-o", "poll=0us", "memory:"}, null_fs,
                          "without polling (-o poll=0us)", rounds, cycles);
  cycles_beside_the_floor({lockfs, "-f", "memory:"}, null_fs, "as it is by default", rounds,
                          cycles);
  {
    Served real({lockfs, "-f", "memory:"}, "/default");
    std::printf(
        "\nhand-over by mode string: microseconds from UN to the next write(2) returning\n");
    std::printf("%8s %10s %10s\n", "waiters", "median", "p99");
    for (const int waiters : {1, 100, 1000}) hand_over(real.dir, waiters, 3000);
    flock_command(real.dir);
  }
  idle_and_start(lockfs);
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
