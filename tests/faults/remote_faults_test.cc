// SPDX-License-Identifier: MIT
// What breaks between a mount and its server, and the server itself: nobody is granted what another
// still believes to hold, everything is answered, and afterwards all goes on by itself.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "tests/contract/witness.h"
#include "tests/faults/remote.h"

namespace lockfs::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kAtOnce = 1.5;  // A second, and what a busy machine adds.

double since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

class RemoteFaults : public RemoteTest {
 protected:
  static bool is_lost(int fd) { return write_command(fd, "renew") == ESTALE; }
  int holder(size_t i, const std::string& name, const std::string& mode = "EX") {
    const int fd = open_lock(i, name);
    EXPECT_EQ(write_command(fd, mode + " timeout=10s"), 0);
    return fd;
  }
  // That node takes a lock that it had not, in the end.
  testing::AssertionResult works(size_t i, double seconds = 10) {
    const std::string name = "works" + std::to_string(++count_);
    int result = 0;
    const bool worked = eventually([&] { return (result = exclusive(i, name)) == 0; }, seconds);
    if (worked) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "errno " << result << "\n" << node(i).log();
  }
  double takeover() { return remote().lease() * 1.9; }

 private:
  int count_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Servers, RemoteFaults, testing::ValuesIn(remote_names()),
                         [](const auto& server) { return server.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RemoteFaults);

TEST_P(RemoteFaults, AServerThatIsRestartedTakesNothingFromAHolder) {
  if (!remote().survives_restart()) GTEST_SKIP() << "who is faster has it then";
  const int held = holder(0, "kept");
  remote().kill();
  remote().start();
  // Whatever the server forgot: node 1 is refused, and in the end the holder still holds.
  const auto begin = Clock::now();
  while (since(begin) < remote().lease() * 1.5) {
    ASSERT_NE(exclusive(1, "kept"), 0);
    ASSERT_FALSE(is_lost(held)) << own(held, "this.error");
  }
  EXPECT_TRUE(works(1));
  EXPECT_EQ(exclusive(1, "kept"), EEXIST);
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return exclusive(1, "kept") == 0; }));
}

TEST_P(RemoteFaults, AHolderIsToldBeforeAnybodyElseIsGranted) {
  const int held = holder(0, "told");
  const Common<std::atomic<Clock::time_point>> granted;
  Child next([&, path = lock(1, "told")] {
    const int result = write_command(open(path.c_str(), O_RDWR | O_CREAT, 0666), "EX timeout=60s");
    *granted = Clock::now();
    return result != 0 ? result : pause();
  });
  if (remote().sees_others()) {
    ASSERT_TRUE(
        eventually([&] { return picture_value(slurp(lock(0, "told")), "waiters_total") == "1"; }));
  }
  network(0).part(true);
  pollfd state{held, 0, 0};
  const auto parted = Clock::now();
  ASSERT_EQ(poll(&state, 1, static_cast<int>(1000 * takeover())), 1);
  EXPECT_TRUE(state.revents & POLLERR);
  const auto told = Clock::now();
  EXPECT_TRUE(is_lost(held));
  EXPECT_THAT(own(held, "this.error"), testing::HasSubstr("did not answer"));
  if (!remote().notices_silence()) return;
  ASSERT_TRUE(eventually([&] { return granted->load() != Clock::time_point(); }, takeover()));
  EXPECT_LT(told, granted->load());
  EXPECT_LT(std::chrono::duration<double>(granted->load() - parted).count(), takeover());
  network(0).part(false);
  EXPECT_TRUE(works(0));
  EXPECT_EQ(exclusive(0, "told"), EEXIST);
}

TEST_P(RemoteFaults, APartitionShorterThanTheLeaseIsNotNoticedByAHolder) {
  const int held = holder(0, "short");
  network(0).part(true);
  std::this_thread::sleep_for(std::chrono::duration<double>(remote().lease() * 0.3));
  network(0).part(false);
  EXPECT_TRUE(works(0));
  EXPECT_FALSE(is_lost(held)) << own(held, "this.error");
  EXPECT_EQ(exclusive(1, "short"), EEXIST);
}

TEST_P(RemoteFaults, WithTheServerGoneEveryOpenAnswersWithinASecondAndWhatIsHeldGoesOn) {
  const int held = holder(0, "local", "PR");
  const int waits = open_lock(1, "local");
  remote().kill();
  const auto begin = Clock::now();
  int opens = 0;
  while (since(begin) < remote().lease() * 0.5) {
    const auto asked = Clock::now();
    const int fd =
        open(lock(0, "new" + std::to_string(++opens)).c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
    const int result = fd < 0 ? errno : 0;
    if (fd >= 0) close(fd);
    EXPECT_LT(since(asked), kAtOnce);
    ASSERT_EQ(result, EHOSTUNREACH);
    if (remote().frees_at_disconnect()) continue;
    const int local = open(lock(0, "local").c_str(), O_RDWR | O_CREAT, 0666);
    EXPECT_EQ(write_command(local, "PR try"), 0);
    close(local);  // There may be very many of them.
    ASSERT_FALSE(is_lost(held));
  }
  EXPECT_GT(opens, 1);
  // Without the lease there is nothing any more, and all is answered as well.
  EXPECT_TRUE(eventually([&] { return is_lost(held); }, takeover()));
  const auto asked = Clock::now();
  EXPECT_EQ(write_command(waits, "EX"), EHOSTUNREACH);
  EXPECT_LT(since(asked), kAtOnce);
  remote().start();
  EXPECT_TRUE(works(0, 15));
  EXPECT_TRUE(works(1, 15));
}

// Each state of a connection in which it can end: the request is on its way, the answer is, it was
// granted and nobody knows, it is being cancelled.
TEST_P(RemoteFaults, AConnectionMayBeCutInEveryState) {
  for (int i = 0; i < 12; ++i) {
    SCOPED_TRACE(i);
    const std::string name = "cut" + std::to_string(i);
    const int held = i % 2 == 0 ? holder(1, name) : -1;
    if (i % 4 < 2) network(0).mute(true);  // What is done there is not heard of here.
    if (i % 3 == 1) network(0).slow(30);
    Child asks([&, path = lock(0, name)] {
      const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0666);
      if (fd < 0) return errno;
      const int result = write_command(fd, i % 3 == 0 ? "EX timeout=200ms" : "EX timeout=20s");
      return result != 0 ? result : write_command(fd, "UN");
    });
    const uint64_t sent = network(0).sent();
    eventually([&] { return network(0).sent() > sent + 50; }, 0.4);
    if (i % 3 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(200));  // Being cancelled.
    network(0).cut();
    network(0).mute(false);
    network(0).slow(0);
    if (held >= 0) {
      ASSERT_EQ(write_command(held, "UN"), 0);
    }
    const int result = asks.wait();
    EXPECT_TRUE(result == 0 || result == ETIMEDOUT || result == EHOSTUNREACH || result == ENOENT)
        << result;
    // Nothing is left of it.
    EXPECT_TRUE(works(0));
    const int after = open_lock(1, name);
    EXPECT_EQ(write_command(after, "EX timeout=10s"), 0) << slurp(lock(1, name));
    const int both = open_lock(0, name);
    EXPECT_NE(write_command(both, "EX try"), 0);
    ASSERT_EQ(write_command(after, "UN"), 0);
    EXPECT_EQ(write_command(both, "EX timeout=10s"), 0);
  }
}

TEST_P(RemoteFaults, AFrozenMountHoldsNothingWhenItWakes) {
  if (!remote().notices_silence()) GTEST_SKIP() << "its connection lives, and so its locks";
  const int held = holder(0, "frozen");
  kill(node(0).daemon(), SIGSTOP);
  const int next = open_lock(1, "frozen");
  EXPECT_EQ(write_command(
                next, "EX timeout=" + std::to_string(static_cast<int>(takeover() * 1000)) + "ms"),
            0);
  kill(node(0).daemon(), SIGCONT);
  // The first thing that it answers is that.
  EXPECT_TRUE(is_lost(held));
  EXPECT_TRUE(works(0));
  EXPECT_EQ(write_command(open_lock(0, "frozen"), "EX try"), EAGAIN);
}

TEST_P(RemoteFaults, AFrozenServerIsAnUnreachableOne) {
  const int held = holder(0, "ice");
  remote().signal(SIGSTOP);
  const auto asked = Clock::now();
  EXPECT_EQ(exclusive(1, "other"), EHOSTUNREACH);
  EXPECT_LT(since(asked), kAtOnce);
  EXPECT_TRUE(eventually([&] { return is_lost(held); }, takeover()));
  remote().signal(SIGCONT);
  EXPECT_TRUE(works(0));
  EXPECT_TRUE(works(1));
  EXPECT_TRUE(eventually([&] { return exclusive(1, "ice") == 0; }));
}

TEST_P(RemoteFaults, GarbageOnTheWireIsTheEndOfTheConnectionOnly) {
  const int held = holder(0, "noise");
  for (const std::string& noise :
       {std::string("garbage\r\n"), std::string("\0\1\2\3", 4), std::string("*3\r\n$-7\r\n"),
        std::string("*999999999999\r\n"), std::string("$999999999\r\nx"), std::string(100000, 'x'),
        std::string("+OK\r\n:1\r\n-ERR\r\n")}) {
    network(0).say(noise);
    EXPECT_TRUE(works(0));
  }
  EXPECT_EQ(is_lost(held), remote().frees_at_disconnect()) << own(held, "this.error");
  EXPECT_EQ(exclusive(1, "noise"), is_lost(held) ? 0 : EEXIST);
}

// At the latest when the lease ends, which keeps who waits in its place.
TEST_P(RemoteFaults, AllWhoWaitForALockHearTogetherThatTheServerIsGone) {
  holder(0, "queue");
  std::vector<std::future<int>> results;
  for (int i = 0; i < 10; ++i) {
    const int fd = open_lock(1, "queue");
    results.push_back(std::async(std::launch::async, [fd] { return write_command(fd, "EX"); }));
  }
  const auto waits = [&] { return picture_value(slurp(lock(1, "queue")), "waiters_total"); };
  ASSERT_TRUE(eventually([&] { return waits() == "10"; })) << waits();
  remote().kill();
  const auto begin = Clock::now();
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), EHOSTUNREACH);
  EXPECT_LT(since(begin), remote().lease() + 2);
}

TEST_P(RemoteFaults, WhoHasWaitedForLongOutlivesACut) {
  const int held = holder(0, "long");
  const int fd = open_lock(1, "long");
  auto result = std::async(std::launch::async, [fd] { return write_command(fd, "EX"); });
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(1200)), std::future_status::timeout);
  network(1).cut();
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(500)), std::future_status::timeout);
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(result.get(), 0);
}

// That of one mount's host: its lease and its locks do not depend on it, and its tokens grow.
TEST_P(RemoteFaults, WhenAMountsClockJumpsNothingIsLost) {
  if (kSanitized) GTEST_SKIP() << "nothing can be loaded before a sanitizer";
  const std::string file = "/tmp/lockfs-mounts-clock-" + std::to_string(getpid());
  const auto set_clock = [&](int64_t seconds) {
    std::ofstream(file, std::ios::in | std::ios::out)  // It is mapped: never shorter.
        .write(reinterpret_cast<const char*>(&seconds), sizeof seconds);
  };
  std::ofstream(file) << std::string(sizeof(int64_t), '\0');
  setenv("LD_PRELOAD", CLOCK_JUMP, 1);
  setenv("LOCKFS_CLOCK_FILE", file.c_str(), 1);
  const Mount jumping({}, remote().source(remote().port()));
  unsetenv("LD_PRELOAD");
  const int held = keep(open(jumping.lock("held").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  ASSERT_EQ(write_command(held, "EX timeout=10s"), 0) << jumping.log();
  const int other = keep(open(jumping.lock("other").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  uint64_t token = 0;
  for (const int64_t offset : {7200, -7200, 0}) {
    set_clock(offset);
    const auto begin = Clock::now();
    while (since(begin) < remote().lease() * 0.5) {
      ASSERT_FALSE(is_lost(held)) << own(held, "this.error");
      ASSERT_EQ(exclusive(1, "held"), EEXIST);
    }
    ASSERT_EQ(write_command(other, "EX timeout=5s"), 0);
    EXPECT_GT(token_of(other), token) << offset;
    token = token_of(other);
    ASSERT_EQ(write_command(other, "UN"), 0);
  }
  unlink(file.c_str());
}

TEST_P(RemoteFaults, ItIsToldHowTheServerIsReached) {
  const auto is_up = [&] {
    const std::string traits = slurp(node(0).path() + "/.lockfs/traits");
    return picture_value(traits, "default.status.state").starts_with("up");
  };
  const auto metric = [&] {
    const std::string text = slurp(node(0).path() + "/.lockfs/metrics");
    const size_t at = text.find("lockfs_backend_up{lockspace=\"default\"");
    return text.substr(text.find("} ", at) + 2, 1);
  };
  ASSERT_TRUE(works(0));
  EXPECT_TRUE(eventually(is_up));
  EXPECT_TRUE(eventually([&] { return metric() == "1"; }));
  remote().kill();
  EXPECT_TRUE(eventually([&] {
    EXPECT_NE(exclusive(0, "asks"), 0);
    return !is_up();
  }));
  EXPECT_EQ(metric(), "0");
  remote().start();
  EXPECT_TRUE(works(0, 15));
  EXPECT_TRUE(eventually(is_up));
  EXPECT_TRUE(eventually([&] { return metric() == "1"; }));
  const int fd = open((node(0).path() + "/.lockfs/events").c_str(), O_RDONLY | O_NONBLOCK);
  std::string events(1 << 20, '\0');
  events.resize(static_cast<size_t>(std::max<ssize_t>(read(fd, events.data(), events.size()), 0)));
  close(fd);
  const size_t down = events.find("\"event\":\"backend_down\"");
  EXPECT_NE(down, std::string::npos) << events;
  EXPECT_NE(events.find("\"event\":\"backend_up\"", down), std::string::npos) << events;
}

TEST_P(RemoteFaults, ASlowServerStopsNoOpen) {
  network(0).slow(20);
  ASSERT_TRUE(works(0));
  constexpr int kProcesses = 8;
  constexpr int kOpens = 250;
  const auto begin = Clock::now();
  {
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < kProcesses; ++i) {
      children.push_back(std::make_unique<Child>([&, i] {
        for (int n = 0; n < kOpens; ++n) {
          const std::string name = std::to_string(i) + "-" + std::to_string(n);
          const int fd = open(lock(0, name).c_str(), O_RDWR | O_CREAT, 0666);
          if (fd < 0) return errno;
          close(fd);
        }
        return 0;
      }));
    }
    for (const auto& child : children) EXPECT_EQ(child->wait(), 0);
  }
  const double rate = kProcesses * kOpens / since(begin);
  std::printf("%.0f plain opens a second with a server 20 ms away\n", rate);
  EXPECT_GT(rate, 1000);
  const auto asked = Clock::now();
  EXPECT_EQ(exclusive(0, "far"), 0);
  EXPECT_LT(since(asked), 0.2);
}

}  // namespace
}  // namespace lockfs::test
