// SPDX-License-Identifier: MIT
// flock(2) on the mount and on tmpfs: the same calls have the same results. The kernel's own
// implementation is the oracle; the one difference, fairness among new requests, has its own test.
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <random>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

/// What one of several descriptions of a file does.
struct Step {
  size_t who;
  int operation;
};

std::string words(const std::vector<Step>& steps) {
  std::string out;
  for (const auto& [who, operation] : steps) {
    out += std::string(out.empty() ? "" : ", ") + static_cast<char>('A' + who) + ":";
    out += (operation & LOCK_SH) != 0 ? "SH" : (operation & LOCK_EX) != 0 ? "EX" : "UN";
    if ((operation & LOCK_NB) != 0) out += "|NB";
  }
  return out;
}

class FlockParity : public MountTest {
 protected:
  FlockParity() {
    std::string pattern = "/dev/shm/lockfs-parity-XXXXXX";
    const Fd made(mkstemp(pattern.data()));
    EXPECT_TRUE(made.valid());
    tmpfs_ = pattern;
  }
  ~FlockParity() override { unlink(tmpfs_.c_str()); }

  std::vector<Fd> open_three(const std::string& path) const {
    std::vector<Fd> all;
    for (int i = 0; i < 3; ++i) {
      all.emplace_back(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    }
    return all;
  }
  static std::vector<int> results(const std::vector<Fd>& files, const std::vector<Step>& steps) {
    std::vector<int> all;
    all.reserve(steps.size());
    for (const auto& [who, operation] : steps) {
      all.push_back(flock_of(files.at(who).get(), operation));
    }
    for (const Fd& file : files) flock_of(file.get(), LOCK_UN);
    return all;
  }

  std::string tmpfs_;
};

TEST_F(FlockParity, EverySequenceOfFourCallsThatDoNotWait) {
  const std::vector<int> operations = {LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_UN};
  const auto there = open_three(tmpfs_);
  const auto here = open_three(mount_.lock("a"));
  const size_t choices = 3 * operations.size();
  for (size_t number = 0; number < choices * choices * choices * choices; ++number) {
    std::vector<Step> steps;
    for (size_t rest = number, i = 0; i < 4; ++i, rest /= choices) {
      steps.push_back({rest % 3, operations.at(rest % choices / 3)});
    }
    ASSERT_EQ(results(here, steps), results(there, steps)) << words(steps);
  }
}

TEST_F(FlockParity, ALongRandomSequenceOfCallsThatDoNotWait) {
  std::mt19937 random(4711);  // NOLINT: the same each time
  const auto there = open_three(tmpfs_);
  const auto here = open_three(mount_.lock("a"));
  for (int round = 0; round < 20; ++round) {
    std::vector<Step> steps;
    for (int i = 0; i < 200; ++i) {
      const std::array<int, 4> operations = {LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_UN,
                                             LOCK_UN | LOCK_NB};
      steps.push_back({random() % 3, operations.at(random() % 4)});
    }
    ASSERT_EQ(results(here, steps), results(there, steps)) << words(steps);
  }
}

TEST_F(FlockParity, AWrongOperationIsRefusedAlike) {
  const auto there = open_three(tmpfs_);
  const auto here = open_three(mount_.lock("a"));
  for (const int operation : {0, LOCK_NB, LOCK_SH | LOCK_EX, 64}) {
    EXPECT_EQ(flock_of(here[0].get(), operation), flock_of(there[0].get(), operation)) << operation;
  }
  EXPECT_FALSE(visible("a"));
}

TEST_F(FlockParity, AReadOnlyDescriptorMayTakeEx) {
  const Fd keep = hold("a", "NL");
  const Fd reader(::open(mount_.lock("a").c_str(), O_RDONLY | O_CREAT, 0666));
  EXPECT_EQ(flock_of(reader.get(), LOCK_EX | LOCK_NB), 0);
}

/// Three processes, each with the file open, that do steps which may wait. The outcome of each
/// step is told in words: "A:0" came back with 0, "A waits" does not come back.
class FlockWaitParity : public FlockParity {
 protected:
  using Actors = std::vector<std::unique_ptr<Actor>>;

  static std::vector<std::string> outcome(const std::string& path, const std::vector<Step>& steps) {
    Actors actors;
    for (size_t i = 0; i < 3; ++i) {
      actors.push_back(std::make_unique<Actor>());
      EXPECT_EQ(actors.back()->open(path), 0);
    }
    std::vector<std::string> all;
    std::vector<bool> waiting(3);
    for (const auto& [who, operation] : steps) {
      if (waiting.at(who)) return {"a step of one that waits"};
      actors.at(who)->begin_flock(0, operation);
      waiting.at(who) = true;
      all.push_back(settle(actors, waiting));
    }
    return all;
  }

 private:
  // Who came back and who waits, each named once; when for a while nobody came back and all others
  // sleep in flock(2). Of those that came back in one step, who was first is a matter of chance.
  static std::string settle(Actors& actors, std::vector<bool>& waiting) {
    std::array<std::string, 3> came;
    int quiet = 0;
    while (quiet < 20) {
      ++quiet;
      for (size_t i = 0; i < actors.size(); ++i) {
        if (!waiting.at(i)) continue;
        if (const auto result = actors.at(i)->result(0.001)) {
          came.at(i) =
              std::string(1, static_cast<char>('A' + i)) + ":" + std::to_string(*result) + " ";
          waiting.at(i) = false;
          quiet = 0;
        } else if (!sleeps_in(actors.at(i)->pid(), SYS_flock)) {
          quiet = 0;
        }
      }
    }
    std::string out;
    for (size_t i = 0; i < actors.size(); ++i) {
      out += came.at(i);
      if (waiting.at(i)) out += std::string(1, static_cast<char>('A' + i)) + " waits ";
    }
    return out;
  }
};

TEST_F(FlockWaitParity, WaitsAndConversionsHaveTheSameOutcome) {
  constexpr size_t a = 0;
  constexpr size_t b = 1;
  constexpr size_t c = 2;
  const std::vector<std::vector<Step>> all = {
      // Waits for EX and SH, and who goes then.
      {{a, LOCK_EX}, {b, LOCK_EX}, {a, LOCK_UN}},
      {{a, LOCK_EX}, {b, LOCK_SH}, {c, LOCK_SH}, {a, LOCK_UN}},
      {{a, LOCK_SH}, {b, LOCK_SH}, {c, LOCK_EX}, {a, LOCK_UN}, {b, LOCK_UN}},
      // Conversions down: the waiting readers go, waiting writers do not.
      {{a, LOCK_EX}, {b, LOCK_SH}, {c, LOCK_SH}, {a, LOCK_SH}},
      {{a, LOCK_EX}, {b, LOCK_EX}, {a, LOCK_SH}, {a, LOCK_UN}},
      {{a, LOCK_EX}, {b, LOCK_EX}, {a, LOCK_SH | LOCK_NB}},
      // Conversions up: alone, beside a reader, and with somebody waiting.
      {{a, LOCK_SH}, {a, LOCK_EX}, {b, LOCK_SH | LOCK_NB}},
      {{a, LOCK_SH}, {b, LOCK_SH}, {a, LOCK_EX}, {b, LOCK_UN}},
      {{a, LOCK_SH}, {b, LOCK_SH}, {a, LOCK_EX | LOCK_NB}, {b, LOCK_EX | LOCK_NB}},
      {{a, LOCK_SH}, {b, LOCK_SH}, {a, LOCK_EX}, {b, LOCK_EX}},
      {{a, LOCK_SH}, {b, LOCK_EX}, {a, LOCK_EX | LOCK_NB}},
      {{a, LOCK_SH}, {b, LOCK_EX}, {a, LOCK_EX}},
      {{a, LOCK_SH}, {b, LOCK_EX}, {a, LOCK_SH}},
      {{a, LOCK_SH}, {b, LOCK_SH}, {c, LOCK_EX}, {a, LOCK_EX | LOCK_NB}, {b, LOCK_UN}},
      // Twice the same.
      {{a, LOCK_EX}, {b, LOCK_EX}, {a, LOCK_EX}, {a, LOCK_UN}},
      {{a, LOCK_SH}, {a, LOCK_SH}, {b, LOCK_EX | LOCK_NB}, {a, LOCK_UN}, {b, LOCK_EX}},
  };
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string path = mount_.lock("lock" + std::to_string(i));
    EXPECT_EQ(outcome(path, all.at(i)), outcome(tmpfs_, all.at(i))) << words(all.at(i));
  }
}

TEST_F(FlockWaitParity, UnlikeTmpfsAReaderDoesNotOvertakeAWaitingWriter) {
  const std::vector<Step> steps = {{0, LOCK_SH}, {1, LOCK_EX}, {2, LOCK_SH}, {0, LOCK_UN}};
  const std::vector<std::string> fair = {"A:0 ", "B waits ", "B waits C waits ",
                                         "A:0 B:0 C waits "};
  EXPECT_EQ(outcome(mount_.lock("a"), steps), fair);
}

}  // namespace
}  // namespace lockfs::test
