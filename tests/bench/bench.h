// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace lockfs::bench {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

double micros(Clock::duration d);
double median(std::vector<double> values);
double percentile(std::vector<double> values, double part);
/// Says what went wrong with errno, and ends the benchmark.
[[noreturn]] void die(const char* what);

/// Starts a program; it ends with us.
pid_t start(const Words& words);
/// Microseconds until it ends.
double run_command(const Words& words);

/// A served mount; `dir` is where locks can be taken.
struct Served {
  std::string mountpoint;
  std::string dir;
  pid_t pid = -1;

  Served(const Words& command, const std::string& subdir);
  ~Served();
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
};

/// So many cycles of taking and releasing a lock.
using Way = void (*)(const std::string& dir, int cycles);
struct Row {
  const char* name;
  Way way;
};
const std::vector<Row>& ways();

/// Microseconds a cycle, of a process of its own on `core` (-1: any).
double measure(Way way, const std::string& dir, int cycles, int core);

}  // namespace lockfs::bench
