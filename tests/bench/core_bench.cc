// SPDX-License-Identifier: MIT
// The core without a mount: what a cycle, a hand-over and a record cost.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <deque>
#include <string>
#include <vector>

#include "backends/memory.h"
#include "core/lock_table.h"

namespace lockfs {
namespace {

constexpr Client kRoot = {0, 0, 0};

struct NoProcesses final : Processes {
  pid_t process_of(pid_t) override { return 0; }
  bool sole_releaser(pid_t, TimePoint, uint64_t, size_t) override { return false; }
  ProcessInfo describe(pid_t) override { return {}; }
};

struct World final : LockObserver {
  void answered(OwnerId owner, LockErrc result) override {
    if (result == LockErrc::kOk) granted = owner;
  }
  void lost(OwnerId, std::string_view) override {}
  void changed(const Lock&) override {}

  OwnerId acquire(std::string_view name) {
    const OwnerId owner = table.open(space, name, kRoot);
    Request request;
    request.want = {Mode::kEX, 0};
    table.request(owner, std::move(request), kRoot);
    return owner;
  }

  TimerQueue timers;
  NoProcesses processes;
  MemoryBackend backend;
  LockTable table{timers, processes, *this};
  Lockspace& space = table.add_lockspace("default", backend);
  OwnerId granted = OwnerId::kNone;
};

void AcquireReleaseOneName(benchmark::State& state) {
  World world;
  for (auto _ : state) world.table.close(world.acquire("report"));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(AcquireReleaseOneName);

// More names than are kept idle (10000), so that records come and go.
void AcquireReleaseRotatingNames(benchmark::State& state) {
  World world;
  std::vector<std::string> names;
  for (int i = 0; i < 100000; ++i) names.push_back("name-" + std::to_string(i));
  size_t next = 0;
  for (auto _ : state) {
    world.table.close(world.acquire(names[next]));
    next = next + 1 == names.size() ? 0 : next + 1;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(AcquireReleaseRotatingNames);

// The holder closes, the first of so many waiters is granted, and a new one joins at the end.
void HandOver(benchmark::State& state) {
  World world;
  OwnerId holder = world.acquire("report");
  for (int64_t i = 0; i < state.range(0); ++i) world.acquire("report");
  for (auto _ : state) {
    world.granted = OwnerId::kNone;
    world.table.close(holder);
    if (world.granted == OwnerId::kNone) state.SkipWithError("nobody was granted the lock");
    holder = world.granted;
    world.acquire("report");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(HandOver)->Arg(1)->Arg(100)->Arg(1000)->Arg(10000);

// Of so many readers that wait, all go at once: the cost of each.
void HandOverToReaders(benchmark::State& state) {
  World world;
  Request read;
  read.want = {Mode::kPR, 0};
  for (auto _ : state) {
    state.PauseTiming();
    const OwnerId writer = world.acquire("report");
    std::vector<OwnerId> readers;
    for (int64_t i = 0; i < state.range(0); ++i) {
      readers.push_back(world.table.open(world.space, "report", kRoot));
      world.table.request(readers.back(), read, kRoot);
    }
    state.ResumeTiming();
    world.table.close(writer);
    state.PauseTiming();
    for (const OwnerId reader : readers) world.table.close(reader);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(HandOverToReaders)->Arg(1000)->Arg(10000);

size_t bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Bytes for each of so many names in some state, names of 11 bytes included; the limit beside it.
template <typename Prepare>
void count_bytes(benchmark::State& state, double limit, Prepare prepare) {
  for (auto _ : state) {
    const size_t before = bytes_in_use();
    World world;
    world.table.idle_limit = static_cast<size_t>(state.range(0));
    for (int64_t i = 0; i < state.range(0); ++i) {
      std::string name = std::to_string(i);
      name.insert(0, 11 - name.size(), '0');
      prepare(world, name);
    }
    const auto used = static_cast<double>(bytes_in_use() - before);
    state.counters["bytes_each"] = used / static_cast<double>(state.range(0));
    state.counters["limit"] = limit;
  }
}

void BytesPerHeldLock(benchmark::State& state) {
  count_bytes(state, 512, [](World& world, const std::string& name) { world.acquire(name); });
}
void BytesPerIdleName(benchmark::State& state) {
  count_bytes(state, 256, [](World& world, const std::string& name) {
    world.table.close(world.acquire(name));
  });
}
void BytesPerPinnedName(benchmark::State& state) {
  count_bytes(state, 256, [](World& world, const std::string& name) {
    world.table.pin(world.space, name, {}, true, [](LockErrc) {});
  });
}
BENCHMARK(BytesPerHeldLock)->Arg(1000000)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BytesPerIdleName)->Arg(1000000)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BytesPerPinnedName)->Arg(1000000)->Iterations(1)->Unit(benchmark::kMillisecond);

void SizesOfRecords(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(sizeof(Lock));
  state.counters["Lock"] = sizeof(Lock);
  state.counters["Owner"] = sizeof(Owner);
  state.counters["Wait"] = sizeof(Wait);
  state.counters["LockStats"] = sizeof(LockStats);
  state.counters["Claim"] = sizeof(Claim);
}
BENCHMARK(SizesOfRecords)->Iterations(1);

}  // namespace
}  // namespace lockfs

BENCHMARK_MAIN();
