// SPDX-License-Identifier: MIT
// Measures `dlm:` on a node of a cluster, beside memory:, raw libdlm and the floor, in turn:
//   dlm_bench local LOCKFS NULL_FS DLMFS_DIR|- [ROUNDS [CYCLES]]
// and the hand-over between two nodes, of which each runs one of these at the same time:
//   dlm_bench turns raw SPACE COUNT | turns mount FILE COUNT | turns dlmfs FILE COUNT
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/bench/bench.h"
#include "tests/dlm/plain_dlm.h"

namespace lockfs::bench {
namespace {

using test::PlainDlm;

constexpr const char* kSpace = "bench_raw";
constexpr int kWarm = 2000;
int names = 0;  // Every fresh lock has a name of its own.

std::string new_name() {
  return "fresh" + std::to_string(getpid()) + "-" + std::to_string(names++);
}

// As an application of libdlm does it: the lock, in NL it stores nothing, and gone.
void raw_cycle(PlainDlm& dlm) {
  if (dlm.lock(new_name(), LKM_EXMODE) != 0) die("dlm lock");
  if (dlm.convert(LKM_NLMODE) != 0 || dlm.unlock() != 0) die("dlm unlock");
}

void exclusive_open(const std::string& dir) {
  const std::string path = dir + "/" + new_name();
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  if (fd < 0) die("open");
  close(fd);
}

void dlmfs_open(const std::string& path) {
  const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  if (fd < 0) die("dlmfs open");
  close(fd);
}

struct Column {
  const char* name = "";
  std::vector<double> times;
  std::function<double()> measure;
};

void print(const std::vector<Column>& columns, size_t fresh, int rounds, int cycles) {
  std::printf("microseconds a cycle, median of %d rounds of %d in turn\n", rounds, cycles);
  std::printf("%-16s %8s %8s %8s %6s %10s %6s\n", "kept", "floor", "memory:", "shm:", "ratio",
              "dlm:", "ratio");
  for (size_t at = 0; at < fresh; at += 4) {
    const double memory = median(columns[at + 1].times);
    const double shm = median(columns[at + 2].times);
    const double dlm = median(columns[at + 3].times);
    std::printf("%-16s %8.0f %8.0f %8.0f %6.2f %10.0f %6.2f\n", columns[at].name,
                median(columns[at].times), memory, shm, shm / memory, dlm, dlm / memory);
  }
  std::printf("fresh, of a new name each time\n");
  for (size_t i = fresh; i < columns.size(); ++i) {
    std::printf("%-16s %8.0f\n", columns[i].name, median(columns[i].times));
  }
  const double bound = 1.5 * median(columns[fresh + 1].times) + median(columns[fresh].times);
  std::printf("dlm: fresh, as a ratio to 1.5 raw libdlm and the floor: %.2f\n",
              median(columns[fresh + 2].times) / bound);
}

int local(int argc, char** argv) {
  if (argc < 5) return 2;
  const std::string dlmfs = argv[4];
  const int rounds = argc > 5 ? std::atoi(argv[5]) : 5;
  const int cycles = argc > 6 ? std::atoi(argv[6]) : 500;
  const std::string segment = "lockfs-bench-" + std::to_string(getpid());
  const Served floor({argv[3]}, "");
  const Served memory({argv[2], "-f", "memory:"}, "/default");
  const Served shm({argv[2], "-f", "shm:" + segment}, "/default");
  const Served dlm({argv[2], "-f", "dlm:"}, "/default");
  PlainDlm raw(kSpace);
  std::vector<Column> columns;
  for (const Row& way : ways()) {
    for (const std::string& dir : {floor.dir, memory.dir, shm.dir, dlm.dir}) {
      columns.push_back(
          {way.name, {}, [&way, dir, cycles] { return measure(way.way, dir, cycles, -1); }});
    }
  }
  const size_t fresh = columns.size();
  const auto add = [&](const char* name, const std::function<void()>& once) {
    columns.push_back({name, {}, [once, cycles] { return per_cycle(cycles, once); }});
  };
  add("floor", [&] { exclusive_open(floor.dir); });
  add("raw libdlm", [&] { raw_cycle(raw); });
  add("dlm: fresh", [&] { exclusive_open(dlm.dir); });
  add("memory:", [&] { exclusive_open(memory.dir); });
  add("shm:", [&] { exclusive_open(shm.dir); });
  if (dlmfs != "-") {
    add("dlmfs kept", [&] { dlmfs_open(dlmfs + "/kept"); });
    add("dlmfs fresh", [&] { dlmfs_open(dlmfs + "/" + new_name()); });
  }
  for (int i = 0; i < kWarm; ++i) exclusive_open(dlm.dir);  // The counters of its tokens are here.
  for (int i = 0; i < rounds; ++i) {
    for (Column& column : columns) column.times.push_back(column.measure());
  }
  unlink(("/dev/shm/" + segment).c_str());
  print(columns, fresh, rounds, cycles);
  return 0;
}

double turns_raw(const std::string& space, int count) {
  PlainDlm dlm(space);
  return turns(
      count,
      [&] {
        if (dlm.lock("turns", LKM_EXMODE) != 0) die("lock");
      },
      [&] { return dlm.await_blocked(kTurnTime); },
      [&] {
        if (dlm.convert(LKM_NLMODE) != 0 || dlm.unlock() != 0) die("unlock");
      });
}

double turns_dlmfs(const std::string& file, int count) {
  int fd = -1;
  return turns(
      count,
      [&] {
        fd = open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
        if (fd < 0) die("dlmfs open");
      },
      [&] { return wanted_by_poll(fd, POLLIN); }, [&] { close(fd); });
}

int run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "local") return local(argc, argv);
  if (what != "turns" || argc != 5) return 2;
  const std::string how = argv[2];
  const int count = std::atoi(argv[4]);
  const double each = how == "raw"     ? turns_raw(argv[3], count)
                      : how == "mount" ? turns_mount(argv[3], count)
                                       : turns_dlmfs(argv[3], count);
  std::printf("%s: %.0f us a hand-over\n", how.c_str(), each);
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
