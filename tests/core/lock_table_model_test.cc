// SPDX-License-Identifier: MIT
// The real table beside the plain model of table_model.h, on random operations.
// LOCKFS_MODEL_OPS: how many operations over all seeds. LOCKFS_MODEL_SEED: the first seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "tests/core/model_run.h"

namespace lockfs::model {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
constexpr uint64_t kOperations = 100000;
#else
constexpr uint64_t kOperations = 1000000;
#endif
constexpr uint64_t kSeeds = 8;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(LockTableModel, TheTableDoesAsTheModel) {
  const uint64_t operations = from_environment("LOCKFS_MODEL_OPS", kOperations);
  const uint64_t first = from_environment("LOCKFS_MODEL_SEED", 1);
  Outcome all;
  for (uint64_t seed = first; seed < first + kSeeds; ++seed) {
    const Outcome outcome = run_beside_model(seed, operations / kSeeds);
    ASSERT_EQ(outcome.difference, "") << "LOCKFS_MODEL_SEED=" << seed;
    all.operations += outcome.operations;
    all.waits += outcome.waits;
    all.deadlocks += outcome.deadlocks;
    all.losses += outcome.losses;
    all.restarts += outcome.restarts;
    all.resumed += outcome.resumed;
    all.undone += outcome.undone;
  }
  std::printf(
      "seeds %lu to %lu: %lu operations, %lu waits, %lu deadlocks, %lu losses, "
      "%lu restarts, %lu resumed, %lu undone\n",
      first, first + kSeeds - 1, all.operations, all.waits, all.deadlocks, all.losses, all.restarts,
      all.resumed, all.undone);
  if (operations < 10000) return;
  for (const uint64_t met :
       {all.waits, all.deadlocks, all.losses, all.restarts, all.resumed, all.undone}) {
    EXPECT_GT(met, operations / 5000) << "the run has hardly met what it is about";
  }
}

// Negative controls: beside a model with one wrong rule the table must look wrong, soon. It is the
// same as a table with that fault beside the right model.
void expect_seen(const Rules& wrong, const std::string& what) {
  const Outcome outcome = run_beside_model(1, 200000, wrong);
  EXPECT_NE(outcome.difference, "") << what << " is not seen";
}

TEST(LockTableModel, AWrongEntryOfTheCompatibilityTableIsSeen) {
  for (size_t a = 1; a < 6; ++a) {
    for (size_t b = a; b < 6; ++b) {
      Rules wrong;
      wrong.together.at(a).at(b) = !wrong.together.at(a).at(b);
      wrong.together.at(b).at(a) = wrong.together.at(a).at(b);
      expect_seen(wrong, std::to_string(a) + " with " + std::to_string(b));
    }
  }
}

TEST(LockTableModel, AWrongOrderOfTurnsIsSeen) {
  Rules unfair;
  unfair.fair = false;
  expect_seen(unfair, "overtaking");
  Rules reversed;
  reversed.last_in_first_out = true;
  expect_seen(reversed, "last in, first out");
  Rules conversions_queue;
  conversions_queue.conversions_first = false;
  expect_seen(conversions_queue, "conversions in the queue");
  Rules forgets;
  forgets.keeps_place = false;
  expect_seen(forgets, "a place that is not kept");
}

TEST(LockTableModel, AMissedRingAForgottenWakeAndASlotTooManyAreSeen) {
  Rules blind;
  blind.refuses_ring = false;
  expect_seen(blind, "a ring of conversions that is let in");
  Rules asleep;
  asleep.release_wakes = false;
  expect_seen(asleep, "a release that wakes nobody");
  Rules generous;
  generous.slot_limit = false;
  expect_seen(generous, "a slot too many");
}

}  // namespace
}  // namespace lockfs::model
