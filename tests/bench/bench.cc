// SPDX-License-Identifier: MIT
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace lockfs::bench {
namespace {

void by_excl(const std::string& dir, int cycles) {
  const std::string name = dir + "/bench-excl";
  for (int i = 0; i < cycles; ++i) {
    const int fd = open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0) die("O_EXCL");
    close(fd);
  }
}

void by_flock(const std::string& dir, int cycles) {
  const std::string name = dir + "/bench-flock";
  const int fd = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  for (int i = 0; i < cycles; ++i) {
    if (flock(fd, LOCK_EX) != 0 || flock(fd, LOCK_UN) != 0) die("flock");
  }
  close(fd);
}

void by_mode_string(const std::string& dir, int cycles) {
  const std::string name = dir + "/bench-mode";
  const int fd = open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  for (int i = 0; i < cycles; ++i) {
    if (write(fd, "EX\n", 3) != 3 || write(fd, "UN\n", 3) != 3) die("write");
  }
  close(fd);
}

}  // namespace

const std::vector<Row>& ways() {
  static const std::vector<Row> all = {
      {"O_EXCL, close", by_excl}, {"flock EX, UN", by_flock}, {"write EX, UN", by_mode_string}};
  return all;
}

double micros(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}

double percentile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values.at(static_cast<size_t>(static_cast<double>(values.size() - 1) * part));
}

void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

pid_t start(const Words& words) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, 1);
  dup2(null, 2);
  execv(argv[0], argv.data());
  _exit(127);
}

Served::Served(const Words& command, const std::string& subdir) {
  std::string pattern = "/tmp/lockfs-bench-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) die("mkdtemp");
  mountpoint = pattern;
  dir = mountpoint + subdir;
  struct stat before {};
  struct stat now {};
  stat(mountpoint.c_str(), &before);
  Words words = command;
  words.push_back(mountpoint);
  pid = start(words);
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  } while (stat(mountpoint.c_str(), &now) != 0 || now.st_dev == before.st_dev);
}
Served::~Served() {
  umount2(mountpoint.c_str(), MNT_DETACH);
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
  rmdir(mountpoint.c_str());
}

double measure(Way way, const std::string& dir, int cycles, int core) {
  const pid_t child = fork();
  if (child == 0) {
    if (core >= 0) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<size_t>(core), &set);
      sched_setaffinity(0, sizeof set, &set);
    }
    const auto begin = Clock::now();
    way(dir, cycles);
    const double each = micros(Clock::now() - begin) / cycles;
    std::ofstream("/tmp/lockfs-bench-result." + std::to_string(getppid())) << each;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) std::exit(1);
  double each = 0;
  const std::string result = "/tmp/lockfs-bench-result." + std::to_string(getpid());
  std::ifstream(result) >> each;
  unlink(result.c_str());
  return each;
}

double run_command(const Words& words) {
  const auto begin = Clock::now();
  waitpid(start(words), nullptr, 0);
  return micros(Clock::now() - begin);
}

double per_cycle(int cycles, const std::function<void()>& once) {
  const auto begin = Clock::now();
  for (int i = 0; i < cycles; ++i) once();
  return micros(Clock::now() - begin) / cycles;
}

void measure_in_turn(std::vector<Column>& columns, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    for (Column& column : columns) column.times.push_back(column.measure());
  }
}

Program::Program(Words words) {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  if (pipe(in.data()) != 0 || pipe(out.data()) != 0) die("pipe");
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in[0], 0);
    dup2(out[1], 1);
    for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  to_ = fdopen(in[1], "w");
  from_ = fdopen(out[0], "r");
}

Program::~Program() {
  fclose(to_);
  fclose(from_);
  waitpid(pid_, nullptr, 0);
}

double Program::measure(const char* what, int count) {
  std::fprintf(to_, "%s %d\n", what, count);
  std::fflush(to_);
  double each = 0;
  if (std::fscanf(from_, "%lf", &each) != 1) die("a program that measures");
  return each;
}

std::string new_name() {
  static int names = 0;
  return "fresh" + std::to_string(getpid()) + "-" + std::to_string(names++);
}

void exclusive_open(const std::string& dir) {
  const std::string path = dir + "/" + new_name();
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  if (fd < 0) die("open");
  close(fd);
}

void fresh_beside(const std::array<std::string, 3>& dirs, const char* client,
                  const std::function<double()>& measure_client, int rounds, int count) {
  const auto opens = [count](const std::string& dir) {
    return [count, dir] { return per_cycle(count, [&] { exclusive_open(dir); }); };
  };
  std::vector<Column> columns = {{"floor", {}, opens(dirs[0])},
                                 {"memory:", {}, opens(dirs[1])},
                                 {client, {}, measure_client},
                                 {"the mount", {}, opens(dirs[2])}};
  measure_in_turn(columns, rounds);
  std::printf("microseconds a cycle, median of %d rounds of %d in turn, of a new name each time\n",
              rounds, count);
  for (const Column& column : columns) {
    std::printf("%-16s %8.1f\n", column.name, median(column.times));
  }
  const double floor = median(columns[0].times);
  const double own = median(columns[2].times);
  const double mount = median(columns[3].times);
  std::printf("as a ratio to the client's own: %.2f; to that and the floor: %.2f\n", mount / own,
              mount / (own + floor));
}

double crowd(const std::array<std::string, 2>& dirs, int count) {
  const auto begin = Clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([path = dirs.at(static_cast<size_t>(i % 2)) + "/many"] {
      const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
      if (fd < 0 || flock(fd, LOCK_EX) != 0) die("flock");
      close(fd);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return micros(Clock::now() - begin) / count;
}

double hand_over(const std::function<double(int)>& side) {
  std::array<int, 2> result{};
  if (pipe2(result.data(), O_CLOEXEC) != 0) die("pipe");
  std::array<pid_t, 2> sides{};
  for (int i = 0; i < 2; ++i) {
    sides.at(static_cast<size_t>(i)) = fork();
    if (sides.at(static_cast<size_t>(i)) != 0) continue;
    const double each = side(i);
    if (i == 0 && write(result[1], &each, sizeof each) < 0) _exit(1);
    _exit(0);
  }
  double each = 0;
  close(result[1]);
  if (read(result[0], &each, sizeof each) != sizeof each) die("a side ended");
  for (const pid_t pid : sides) waitpid(pid, nullptr, 0);
  close(result[0]);
  return each;
}

double turns(int count, const std::function<void()>& take, const std::function<bool()>& wanted,
             const std::function<void()>& give) {
  take();
  if (!wanted()) die("the other node did not come");
  const auto begin = Clock::now();
  auto end = begin;
  int done = 0;
  do {
    give();
    take();
    end = Clock::now();
  } while (++done < count && wanted());
  give();
  return micros(end - begin) / (2.0 * done);
}

bool wanted_by_poll(int fd, short event) {
  pollfd state{fd, event, 0};
  return poll(&state, 1, kTurnTime) == 1 && (state.revents & event) != 0;
}

double turns_mount(const std::string& file, int count) {
  const int fd = open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  const auto command = [&](const char* text) {
    if (write(fd, text, std::strlen(text)) < 0) die(text);
  };
  return turns(
      count, [&] { command("EX"); }, [&] { return wanted_by_poll(fd, POLLPRI); },
      [&] { command("UN"); });
}

}  // namespace lockfs::bench
