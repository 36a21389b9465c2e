// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
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

/// Microseconds a call of `once`.
double per_cycle(int cycles, const std::function<void()>& once);

/// What is measured, again and again: microseconds each time.
struct Column {
  const char* name = "";
  std::vector<double> times;
  std::function<double()> measure;
};
/// Each of them once in each round.
void measure_in_turn(std::vector<Column>& columns, int rounds);

/// A program that stays, and for each line of its input, "WHAT COUNT", prints one figure.
class Program {
 public:
  explicit Program(Words words);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  double measure(const char* what, int count);

 private:
  pid_t pid_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

/// A name that no lock has had.
std::string new_name();
/// Takes and releases a lock of a new name.
void exclusive_open(const std::string& dir);

/// Fresh locks by the floor, by `memory:` and by a mount of a server (their directories), and what
/// the server's own client does, in turn; prints them and their ratios.
void fresh_beside(const std::array<std::string, 3>& dirs, const char* client,
                  const std::function<double()>& measure_client, int rounds, int count);

/// So many threads want one lock of two mounts, once each: microseconds a hand-over.
double crowd(const std::array<std::string, 2>& dirs, int count);

/// Two processes that hand one lock to each other: what the first one measured.
double hand_over(const std::function<double(int)>& side);

/// Milliseconds in which the other process takes its turn.
inline constexpr int kTurnTime = 10000;

/// One of two processes that hand a lock to each other: microseconds a hand-over. Each lets go when
/// the other waits, and asks again; it ends when the other one has ended and wants no more.
double turns(int count, const std::function<void()>& take, const std::function<bool()>& wanted,
             const std::function<void()>& give);
/// The same by a lock of a mount.
double turns_mount(const std::string& file, int count);
/// Whether `event` comes within the time of a turn.
bool wanted_by_poll(int fd, short event);

}  // namespace lockfs::bench
