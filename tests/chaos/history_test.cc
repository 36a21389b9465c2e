// SPDX-License-Identifier: MIT
// Random processes on a real mount, killed and stopped at random: what they were granted must be
// a history that a lock manager may have.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/chaos/chaos.h"
#include "tests/chaos/worker.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::IsEmpty;

Take take_named(const std::string& mode) {
  for (size_t i = 0; i + 1 < kTakes; ++i) {
    if (mode == name_of(static_cast<Take>(i))) return static_cast<Take>(i);
  }
  return mode == "SLOT" ? Take::kSlot : throw std::invalid_argument(mode);
}

// What is wrong with one picture of a lock: its first waiter could have it now.
std::string idle_waiter(const json& lock) {
  if (lock.at("waiters_total") == 0) return {};
  if (lock.at("mode") == "free") return "a waiter on a free lock: " + lock.dump();
  const json& first = lock.at("waiters").at(0);
  const Take wanted = take_named(first.at("mode"));
  size_t slots = 0;
  for (const json& holder : lock.at("holders")) {
    if (holder.at("pid") == first.at("pid")) continue;  // Its own, which it converts.
    const Take held = take_named(holder.at("mode"));
    slots += held == Take::kSlot ? 1 : 0;
    if (!go_together(wanted, held) || slots >= kSlots) return {};
  }
  return "the first waiter could have it: " + lock.dump();
}

class History : public MountTest {
 protected:
  struct Run {
    uint64_t kills = 0;
    uint64_t stops = 0;
    uint64_t pictures = 0;
    std::vector<std::string> idle;  ///< What idle_waiter() found.
  };

  void start(size_t seat) {
    const uint64_t seed = random_();
    children_.at(seat) = std::make_unique<Child>([&, seat, seed] {
      return work(*table_, table_->seats.at(seat), mount_.path() + "/default", seed, liar_);
    });
  }

  // What a process held that died in `seat`, it held surely until it was killed.
  void kill_one(size_t seat) {
    const int64_t when = monotonic();
    children_.at(seat)->signal(SIGKILL);
    EXPECT_EQ(children_.at(seat)->wait(), 128 + SIGKILL);
    Seat& record = table_->seats.at(seat);
    for (size_t i = record.count; i > 0 && i + 100 > record.count; --i) {
      Grant& grant = record.grants.at(i - 1);
      if (grant.to == 0) grant.to = when;
    }
  }

  void look(Run& run) const {
    const json all = json::parse(slurp(mount_.path() + "/.lockfs/locks.json"));
    ++run.pictures;
    for (const json& lock : all.at("locks")) {
      const std::string wrong = idle_waiter(lock);
      if (!wrong.empty() && run.idle.size() < 5) run.idle.push_back(wrong);
    }
  }

  // Kills, stops and lets go on, and looks, for so long; then all may end.
  Run disturb(double seconds) {
    Run run;
    std::array<bool, Table::kSeats> stopped{};
    const int64_t end = monotonic() + static_cast<int64_t>(seconds * 1e9);
    while (monotonic() < end) {
      const size_t seat = random_() % Table::kSeats;
      const auto dice = random_() % 10;
      if (dice < 2) {
        kill_one(seat);
        ++run.kills;
        start(seat);
        stopped.at(seat) = false;
      } else if (dice < 5) {
        children_.at(seat)->signal(stopped.at(seat) ? SIGCONT : SIGSTOP);
        run.stops += stopped.at(seat) ? 0 : 1;
        stopped.at(seat) = !stopped.at(seat);
      } else {
        look(run);
      }
      usleep(static_cast<useconds_t>(random_() % 10000));
    }
    table_->end = true;
    for (const auto& child : children_) child->signal(SIGCONT);
    return run;
  }

  Run run_all(double seconds) {
    for (size_t seat = 0; seat < Table::kSeats; ++seat) start(seat);
    return disturb(seconds);
  }

  void expect_all_end() {
    for (size_t seat = 0; seat < Table::kSeats; ++seat) {
      siginfo_t info{};
      const auto pid = static_cast<id_t>(children_.at(seat)->pid());
      const bool ended = eventually([&] {
        return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
      });
      EXPECT_TRUE(ended) << "seat " << seat << " waits for a lock that is free:\n"
                         << slurp(mount_.path() + "/.lockfs/locks.json");
      if (!ended) continue;
      EXPECT_EQ(children_.at(seat)->wait(), 0);
    }
  }

  std::vector<Grant> history() const {
    std::vector<Grant> all;
    for (const Seat& seat : table_->seats) {
      all.insert(all.end(), seat.grants.begin(), seat.grants.begin() + seat.count);
    }
    return all;
  }

  void report(const Run& run) const {
    uint64_t operations = 0;
    std::map<std::string, uint64_t> refused;
    for (const Seat& seat : table_->seats) {
      operations += seat.operations;
      for (size_t i = 0; i < seat.refused.size(); ++i) {
        if (seat.refused.at(i) != 0)
          refused[strerrorname_np(static_cast<int>(i))] += seat.refused.at(i);
      }
    }
    std::cout << "seed " << seed_ << ": " << operations << " operations, " << history().size()
              << " grants, " << run.kills << " kills, " << run.stops << " stops, " << run.pictures
              << " pictures; refused:";
    for (const auto& [name, count] : refused) std::cout << " " << name << " " << count;
    std::cout << "\n";
  }

  uint64_t seed_ = setting("LOCKFS_CHAOS_SEED", static_cast<uint64_t>(monotonic()));
  std::mt19937_64 random_{seed_};
  bool liar_ = false;
  Shared<Table> table_;
  std::array<std::unique_ptr<Child>, Table::kSeats> children_;
};

TEST_F(History, OfRandomProcessesKilledAndStoppedIsThatOfALockManager) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  const Run run = run_all(static_cast<double>(setting("LOCKFS_CHAOS_SECONDS", 15)));
  expect_all_end();
  report(run);
  EXPECT_THAT(violations(history()), IsEmpty()) << "seed " << seed_;
  EXPECT_THAT(run.idle, IsEmpty()) << "seed " << seed_;
  for (const Seat& seat : table_->seats) {
    EXPECT_EQ(seat.strange.load(), 0) << strerror(seat.strange) << ", seed " << seed_;
    EXPECT_LT(seat.count.load() + 10, Seat::kMost) << "the record is full";
  }
  EXPECT_GT(history().size(), 1000U);
  EXPECT_GT(run.kills, 10U);
  EXPECT_TRUE(eventually([&] { return names_in(mount_.path() + "/default").size() == 1; }))
      << "all have gone, so all is free";
  EXPECT_EQ(waiters(), 0U);
}

TEST_F(History, OfLiarsIsFoundOut) {
  if (kUnlikeProcesses != nullptr) GTEST_SKIP() << kUnlikeProcesses;
  liar_ = true;
  run_all(2);
  expect_all_end();
  EXPECT_THAT(violations(history()), ::testing::Not(IsEmpty()));
}

TEST(HistoryPictures, AWaiterThatCouldGoIsFound) {
  const auto lock = [](const std::string& held, int holder, const std::string& wanted) {
    return json{{"mode", held == "NL" ? "free" : held},
                {"holders", {{{"mode", held}, {"pid", holder}}}},
                {"waiters_total", 1},
                {"waiters", {{{"mode", wanted}, {"pid", 1}}}}};
  };
  EXPECT_EQ(idle_waiter(lock("EX", 2, "CR")), "");
  EXPECT_NE(idle_waiter(lock("PR", 2, "CR")), "");
  EXPECT_NE(idle_waiter(lock("NL", 2, "EX")), "");
  EXPECT_NE(idle_waiter(lock("PR", 1, "EX")), "") << "its own conversion";
  EXPECT_NE(idle_waiter(lock("SLOT", 2, "SLOT")), "") << "the second of two slots";
}

}  // namespace
}  // namespace lockfs::test
