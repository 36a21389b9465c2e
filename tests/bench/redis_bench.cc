// SPDX-License-Identifier: MIT
// Measures `redis:` beside memory:, the floor, and what a client of Redis does itself, in turn,
// with a server on the loopback:
//   redis_bench LOCKFS NULL_FS [ROUNDS [CYCLES]]
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "tests/bench/bench.h"

namespace lockfs::bench {
namespace {

constexpr const char* kRelease =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";
constexpr int kPollPause = 100000;  // Microseconds; what redis-py's Lock sleeps unless told.
constexpr int kHandOvers = 300;
constexpr int kPolledTurns = 20;

// A connection to the server, used as a program would.
class Client {
 public:
  explicit Client(int port) : context_(redisConnect("127.0.0.1", port), redisFree) {}
  bool works() const { return context_ != nullptr && context_->err == 0; }
  bool lock(const std::string& key) {
    return text({"SET", key, "me", "NX", "PX", "10000"}) == "OK";
  }
  void unlock(const std::string& key) { text({"EVAL", kRelease, "1", key, "me"}); }
  std::string text(const Words& words) {
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    const std::unique_ptr<void, void (*)(void*)> reply(
        redisCommandArgv(context_.get(), static_cast<int>(argv.size()), argv.data(), nullptr),
        freeReplyObject);
    const auto* answer = static_cast<const redisReply*>(reply.get());
    return answer == nullptr || answer->str == nullptr ? "" : answer->str;
  }

 private:
  std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

std::string value_in(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  return at == std::string::npos ? "0" : text.substr(at + key.size(), 40);
}

// A server of our own, in a directory that goes with it.
struct Server {
  std::string directory = "/tmp/lockfs-bench-redis-XXXXXX";
  int port = 20000 + getpid() % 20000;
  pid_t pid = -1;

  Server() {
    if (mkdtemp(directory.data()) == nullptr) die("mkdtemp");
    pid = start({"/usr/bin/redis-server", "--port", std::to_string(port), "--bind", "127.0.0.1",
                 "--save", "", "--dir", directory});
    while (!Client(port).works()) usleep(2000);
    // It is not new: nobody has to be heard before something is granted.
    Client client(port);
    client.text({"SET", "lockfs:run", value_in(client.text({"INFO", "server"}), "run_id:")});
  }
  ~Server() {
    kill(pid, SIGTERM);
    waitpid(pid, nullptr, 0);
    std::filesystem::remove_all(directory);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  std::string url() const { return "redis://127.0.0.1:" + std::to_string(port); }
  // How many calls of lockfs's script it has had.
  long calls() const {
    Client client(port);
    return std::atol(
        value_in(client.text({"INFO", "commandstats"}), "cmdstat_evalsha:calls=").c_str());
  }
};

void print_kept(const std::vector<Column>& columns, size_t fresh) {
  std::printf("%-16s %8s %8s %6s\n", "kept", "memory:", "redis:", "ratio");
  for (size_t at = 0; at < fresh; at += 2) {
    const double memory = median(columns[at].times);
    const double redis = median(columns[at + 1].times);
    std::printf("%-16s %8.1f %8.1f %6.2f\n", columns[at].name, memory, redis, redis / memory);
  }
}

void cycles(const Server& server, const std::string& floor, const std::string& memory,
            const std::string& redis, int rounds, int count) {
  Client client(server.port);
  std::vector<Column> columns;
  for (const Row& way : ways()) {
    for (const std::string& dir : {memory, redis}) {
      columns.push_back(
          {way.name, {}, [&way, dir, count] { return measure(way.way, dir, count, -1); }});
    }
  }
  const size_t fresh = columns.size();
  const auto add = [&](const char* name, const std::function<void()>& once) {
    columns.push_back({name, {}, [once, count] { return per_cycle(count, once); }});
  };
  add("floor", [&] { exclusive_open(floor); });
  add("memory:", [&] { exclusive_open(memory); });
  add("SET NX, release", [&] {
    const std::string key = new_name();
    if (!client.lock(key)) die("SET");
    client.unlock(key);
  });
  add("redis:", [&] { exclusive_open(redis); });
  measure_in_turn(columns, rounds);
  std::printf("microseconds a cycle, median of %d rounds of %d in turn\n", rounds, count);
  print_kept(columns, fresh);
  std::printf("fresh, of a new name each time\n");
  for (size_t i = fresh; i < columns.size(); ++i) {
    std::printf("%-16s %8.1f\n", columns[i].name, median(columns[i].times));
  }
  const double client_time = median(columns[fresh + 2].times);
  std::printf("redis: fresh, as a ratio to the client's own: %.2f; to that and the floor: %.2f\n",
              median(columns[fresh + 3].times) / client_time,
              median(columns[fresh + 3].times) / (client_time + median(columns[fresh].times)));
}

// What two processes that poll share.
struct Polled {
  std::atomic<int> turn;
  std::atomic<Clock::rep> released;
};

// From the release by one to the grant of the other, which looks again and again, as programs do.
double poll_turns(int port, Polled& polled, int side, int count) {
  Client client(port);
  Clock::duration waited{};
  for (int i = 0; i < count; ++i) {
    while (!client.lock("polled") || polled.turn != side) {
      if (polled.turn != side) client.unlock("polled");
      usleep(kPollPause);
    }
    if (polled.released != 0) {
      waited += Clock::now().time_since_epoch() - Clock::duration(polled.released);
    }
    usleep(static_cast<useconds_t>(rand()) % kPollPause);
    polled.turn = 1 - side;
    polled.released = Clock::now().time_since_epoch().count();
    client.unlock("polled");
  }
  return micros(waited) / count;
}

// What so many waiters of two mounts cost the server.
void waiters(const Server& server, const std::array<std::string, 2>& dirs, int count) {
  const long before = server.calls();
  const double each = crowd(dirs, count);
  std::printf("%5d waiters of two mounts: %.2f calls and %.0f us a hand-over\n", count,
              static_cast<double>(server.calls() - before) / count, each);
}

int run(int argc, char** argv) {
  if (argc < 3) return 2;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 7;
  const int count = argc > 4 ? std::atoi(argv[4]) : 2000;
  const Server server;
  const Served floor({argv[2]}, "");
  const Served memory({argv[1], "-f", "memory:"}, "/default");
  const Served one({argv[1], "-f", server.url()}, "/default");
  const Served two({argv[1], "-f", server.url()}, "/default");
  std::printf("\nredis: beside its server on the loopback\n");
  cycles(server, floor.dir, memory.dir, one.dir, rounds, count);
  const std::array<std::string, 2> dirs = {one.dir, two.dir};
  const double mounts = hand_over(
      [&](int i) { return turns_mount(dirs.at(static_cast<size_t>(i)) + "/turns", kHandOvers); });
  auto* polled = static_cast<Polled*>(
      mmap(nullptr, sizeof(Polled), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const double polling =
      hand_over([&](int i) { return poll_turns(server.port, *polled, i, kPolledTurns); });
  std::printf("hand-over between two mounts: %.0f us; between two that poll each 100 ms: %.0f us\n",
              mounts, polling);
  for (const int many : {10, 100, 1000}) waiters(server, dirs, many);
  return 0;
}

}  // namespace
}  // namespace lockfs::bench

int main(int argc, char** argv) { return lockfs::bench::run(argc, argv); }
