// SPDX-License-Identifier: MIT
// A thousand waiters on one lock: all parked, served in the order they came, and the mount
// answers others meanwhile.
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

constexpr size_t kWaiters = 1000;
constexpr auto kPrompt = std::chrono::milliseconds(100);

template <typename Call>
std::chrono::steady_clock::duration time_of(Call call) {
  const auto begin = std::chrono::steady_clock::now();
  call();
  return std::chrono::steady_clock::now() - begin;
}

/// The median of nine: on a busy machine one of them may have waited for a core.
template <typename Call>
std::chrono::steady_clock::duration usual(Call call) {
  std::array<std::chrono::steady_clock::duration, 9> times{};
  for (auto& time : times) time = time_of(call);
  std::sort(times.begin(), times.end());
  return times.at(times.size() / 2);
}

class Waiters : public MountTest {
 protected:
  Waiters() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    EXPECT_GT(limit.rlim_cur, 2 * kWaiters) << "too few descriptors for this test";
  }

  /// stat, cat and unlock answer promptly while all wait.
  void expect_prompt_answers() const {
    const std::string path = mount_.lock("a");
    const Fd other = open("b");
    struct stat attributes {};
    EXPECT_LT(usual([&] { EXPECT_EQ(stat(path.c_str(), &attributes), 0); }), kPrompt) << "stat";
    std::string picture;
    EXPECT_LT(usual([&] { picture = slurp(path); }), kPrompt) << "cat";
    EXPECT_EQ(picture_value(picture, "waiters_total"), std::to_string(kWaiters));
    EXPECT_LT(usual([&] {
                EXPECT_EQ(flock_of(other.get(), LOCK_EX), 0);
                EXPECT_EQ(flock_of(other.get(), LOCK_UN), 0);
              }),
              kPrompt)
        << "lock and unlock";
  }
  static std::vector<size_t> in_order() {
    std::vector<size_t> order(kWaiters);
    std::iota(order.begin(), order.end(), size_t{0});
    return order;
  }
};

/// Threads that wait by write(2) or flock(2), each with its own open, and note their turn.
class Crowd {
 public:
  explicit Crowd(std::string path) : path_(std::move(path)) {}
  ~Crowd() {
    for (std::thread& thread : threads_) thread.join();
  }
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;

  void add(Way way) {
    threads_.emplace_back([this, way, number = threads_.size()] {
      const Fd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
      if (take(way, fd.get(), Want::kExclusive) != 0) ++failures_;
      turns_.at(next_++) = number;  // It holds EX: nobody else is here.
    });
  }
  std::vector<size_t> turns() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return {turns_.begin(), turns_.end()};
  }
  int failures() const { return failures_; }

 private:
  std::string path_;
  std::vector<std::thread> threads_;
  std::array<size_t, kWaiters> turns_{};
  std::atomic<size_t> next_{0};
  std::atomic<int> failures_{0};
};

class WaitersByWay : public Waiters, public ::testing::WithParamInterface<Way> {};

INSTANTIATE_TEST_SUITE_P(, WaitersByWay, ::testing::Values(Way::kWrite, Way::kFlock, Way::kOfd),
                         name_of_case);

TEST_P(WaitersByWay, AThousandThreadsAreServedInTheOrderTheyCame) {
  const Fd holder = hold("a", "EX");
  Crowd crowd(mount_.lock("a"));
  for (size_t i = 0; i < kWaiters; ++i) {
    crowd.add(GetParam());
    ASSERT_TRUE(eventually_waiting(i + 1));
  }
  expect_prompt_answers();
  EXPECT_LT(time_of([&] { EXPECT_EQ(write_command(holder.get(), "UN"), 0); }), kPrompt);
  EXPECT_EQ(crowd.turns(), in_order());
  EXPECT_EQ(crowd.failures(), 0);
  EXPECT_FALSE(visible("a"));
}

/// A thousand processes, as scripts would be.
class WaitingProcesses : public Waiters {
 protected:
  WaitingProcesses() {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    turns_ = Fd(ends[0]);
    report_ = Fd(ends[1]);
    holder_ = std::make_unique<Actor>();
    EXPECT_EQ(holder_->open(mount_.lock("a")), 0);
    EXPECT_EQ(holder_->write(0, "EX"), 0);
  }
  void add(size_t number) {
    children_.push_back(std::make_unique<Child>([this, number] {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int fd = ::open(mount_.lock("a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      const int result = flock_of(fd, LOCK_EX);
      if (write(report_.get(), &number, sizeof(number)) < 0) return 1;
      return result;
    }));
  }

  Fd turns_;
  Fd report_;
  std::unique_ptr<Actor> holder_;
  std::vector<std::unique_ptr<Child>> children_;
};

TEST_F(WaitingProcesses, AThousandByFlockAreServedInTheOrderTheyCame) {
  for (size_t i = 0; i < kWaiters; ++i) {
    add(i);
    ASSERT_TRUE(eventually_waiting(i + 1));
  }
  expect_prompt_answers();
  EXPECT_LT(time_of([&] { EXPECT_EQ(holder_->write(0, "UN"), 0); }), kPrompt);
  for (const auto& child : children_) EXPECT_EQ(child->wait(), 0);
  std::vector<size_t> turns(kWaiters);
  const auto size = static_cast<ssize_t>(turns.size() * sizeof(size_t));
  EXPECT_EQ(read(turns_.get(), turns.data(), static_cast<size_t>(size)), size);
  EXPECT_EQ(turns, in_order());
}

TEST_F(WaitingProcesses, AThousandKilledWaitersLeaveNothing) {
  for (size_t i = 0; i < kWaiters; ++i) add(i);
  ASSERT_TRUE(eventually_waiting(kWaiters, 60));
  for (const auto& child : children_) child->signal(SIGKILL);
  for (const auto& child : children_) EXPECT_EQ(child->wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually_waiting(0));
  EXPECT_EQ(value("a", "holders_total"), "1");
  EXPECT_EQ(holder_->write(0, "UN"), 0);
  EXPECT_FALSE(visible("a"));
}

TEST_F(Waiters, AThousandReadersBehindAWriterAreServedTogether) {
  const Fd holder = hold("a", "EX");
  std::vector<Fd> files;
  std::vector<std::future<int>> all;
  for (size_t i = 0; i < kWaiters; ++i) {
    files.push_back(open("a"));
    all.push_back(
        in_thread([fd = files.back().get()] { return write_command(fd, "PR timeout=60s"); }));
  }
  ASSERT_TRUE(eventually_waiting(kWaiters, 60));
  expect_prompt_answers();
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  for (auto& each : all) {
    ASSERT_TRUE(ended(each));
    EXPECT_EQ(each.get(), 0);
  }
  EXPECT_EQ(value("a", "holders_total"), std::to_string(kWaiters));
}

TEST_F(Waiters, AThousandTimeoutsEndTogether) {
  const Fd holder = hold("a", "EX");
  std::vector<Fd> files;
  std::vector<std::future<int>> all;
  for (size_t i = 0; i < kWaiters; ++i) {
    files.push_back(open("a"));
    all.push_back(
        in_thread([fd = files.back().get()] { return write_command(fd, "EX timeout=1s"); }));
  }
  for (auto& each : all) {
    ASSERT_TRUE(ended(each));
    EXPECT_EQ(each.get(), ETIMEDOUT);
  }
  EXPECT_EQ(waiters(), 0U);
  EXPECT_EQ(value("a", "stats.timeouts"), std::to_string(kWaiters));
}

}  // namespace
}  // namespace lockfs::test
