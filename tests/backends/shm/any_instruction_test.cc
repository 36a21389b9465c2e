// SPDX-License-Identifier: MIT
// A daemon that dies at any instruction of a change. A child makes the change one instruction at a
// time; each state of the segment that ever stood in memory is copied, mended as the next mount
// would, and must then be well: each lock as before the change or as after it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "tests/backends/shm/segment_memory.h"
#include "tests/support/mount.h"

namespace lockfs::shm::test {
namespace {

constexpr uint32_t kLocks = 4;  // One chain each; names share chains.
const std::vector<std::string> kNames = {"a", "b", "c", "d"};

using Step = std::function<void(LockSegment&)>;

void acquire(LockSegment& segment, uint32_t node, const std::string& name, Mode mode) {
  std::optional<LockSegment::Place> place;
  NodeSet wake = 0;
  segment.acquire(node, "space", name, mode, false, place, wake);
}
Step acquires(uint32_t node, const std::string& name, Mode mode) {
  return [=](LockSegment& segment) { acquire(segment, node, name, mode); };
}
Step releases(uint32_t node, const std::string& name) {
  return [=](LockSegment& segment) {
    NodeSet wake = 0;
    segment.release(node, *segment.place_of("space", name), wake);
  };
}
Step cancels(uint32_t node, const std::string& name) {
  return [=](LockSegment& segment) {
    NodeSet wake = 0;
    segment.cancel(node, *segment.place_of("space", name), wake);
  };
}
Step pins(const std::string& name, uid_t uid) {
  return [=](LockSegment& segment) { segment.pin("space", name, {uid, 0640, true}, false); };
}

std::vector<std::string> picture(LockSegment& segment) {
  std::vector<std::string> out;
  for (const std::string& name : kNames) out.push_back(claims_of(segment, name));
  return out;
}

uint64_t highest_token(LockSegment& segment) {
  uint64_t highest = 0;
  for (const RemoteLock& lock : segment.look_all(kOnlooker, "space")) {
    for (const RemoteClaim& claim : lock.claims) highest = std::max(highest, claim.token);
  }
  return highest;
}

// Of a lock that somebody takes when all else is gone.
uint64_t next_token(LockSegment& segment) {
  NodeSet wake = 0;
  for (uint32_t node = 0; node < kOnlooker; ++node) segment.release_all(node, wake);
  for (const std::string& name : kNames) segment.unpin("space", name);
  acquire(segment, 0, "a", Mode::kEX);
  return segment.tokens(*segment.place_of("space", "a")).next;
}

struct Scenario {
  std::string name;
  std::vector<Step> before;
  Step change;
};

class AnyInstruction : public testing::TestWithParam<Scenario> {
 protected:
  // Runs the change in a child, an instruction at a time; `look` sees each state of the memory.
  static size_t step_through(const SegmentMemory& memory, const Step& change,
                             const std::function<void()>& look) {
    const pid_t child = fork();
    if (child == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      LockSegment segment = memory.segment();
      raise(SIGSTOP);
      if (!segment.begin(1)) {
        NodeSet wake = 0;
        segment.repair(wake);
      }
      change(segment);
      segment.end();
      raise(SIGSTOP);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    std::vector<char> last(memory.size());
    std::memcpy(last.data(), memory.base(), memory.size());
    size_t states = 0;
    while (true) {
      ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
      waitpid(child, &status, 0);
      if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
      if (std::memcmp(last.data(), memory.base(), memory.size()) == 0) continue;
      std::memcpy(last.data(), memory.base(), memory.size());
      ++states;
      look();
      if (testing::Test::HasFailure()) break;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return states;
  }
};

TEST_P(AnyInstruction, LeavesASegmentThatTheNextMountMends) {
  if (lockfs::test::kSanitized) GTEST_SKIP() << "a sanitizer's instructions are not ours";
  const Scenario& scenario = GetParam();
  SegmentMemory memory(kLocks);
  LockSegment segment = memory.segment();
  auto* header = static_cast<Header*>(memory.base());
  header->token_high.store(0x7fffffff);  // Beyond the clock, and soon to carry.
  header->token_low.store(static_cast<uint32_t>(0xffffffff - scenario.before.size() * kTokens));
  for (const Step& step : scenario.before) step(segment);
  SegmentMemory copy(kLocks);
  copy.copy_from(memory);
  LockSegment other = copy.segment();
  const auto before = picture(other);
  scenario.change(other);
  const auto after = picture(other);
  const size_t states = step_through(memory, scenario.change, [&] {
    copy.copy_from(memory);
    NodeSet wake = 0;
    if (!other.begin(2)) other.repair(wake);
    other.end();
    const auto wrong = other.check();
    EXPECT_FALSE(wrong) << *wrong;
    const auto now = picture(other);
    for (size_t i = 0; i < kNames.size(); ++i) {
      EXPECT_TRUE(now[i] == before[i] || now[i] == after[i])
          << kNames[i] << " was " << before[i] << ", should be " << after[i] << ", is " << now[i];
    }
    const uint64_t given = highest_token(other);
    EXPECT_GE(next_token(other), given + kTokens);
  });
  EXPECT_GT(states, 2U);
  EXPECT_EQ(picture(segment), after);
  RecordProperty("states", static_cast<int>(states));
}

const auto kNothing = [](LockSegment& /*segment*/) {};
const std::vector<Scenario> kScenarios = {
    {"FirstAcquire", {}, acquires(1, "a", Mode::kEX)},
    {"AcquireBesideOthers",
     {acquires(0, "a", Mode::kPR), acquires(0, "b", Mode::kCR)},
     acquires(1, "a", Mode::kPR)},
    {"Wait", {acquires(0, "a", Mode::kEX)}, acquires(1, "a", Mode::kPR)},
    {"AcquireWhenFull",
     {acquires(0, "a", Mode::kEX), acquires(0, "b", Mode::kEX), acquires(0, "c", Mode::kEX),
      acquires(0, "d", Mode::kEX)},
     [](LockSegment& segment) {
       acquire(segment, 1, "e", Mode::kEX);
       acquire(segment, 1, "a", Mode::kPR);
     }},
    {"ConvertUp",
     {acquires(1, "a", Mode::kCR), acquires(0, "a", Mode::kCR)},
     acquires(1, "a", Mode::kPW)},
    {"ConvertDownLetsAWaiterGo",
     {acquires(1, "a", Mode::kEX), acquires(0, "a", Mode::kPR), acquires(2, "a", Mode::kPR)},
     acquires(1, "a", Mode::kCR)},
    {"ConversionWaits",
     {acquires(1, "a", Mode::kPR), acquires(0, "a", Mode::kPR)},
     acquires(1, "a", Mode::kEX)},
    {"CancelLetsOthersGo",
     {acquires(0, "a", Mode::kPR), acquires(1, "a", Mode::kEX), acquires(2, "a", Mode::kPR)},
     cancels(1, "a")},
    {"ReleaseLetsAWriterGo",
     {acquires(1, "a", Mode::kEX), acquires(0, "a", Mode::kEX)},
     releases(1, "a")},
    {"ReleaseLetsReadersGo",
     {acquires(1, "a", Mode::kEX), acquires(0, "a", Mode::kPR), acquires(2, "a", Mode::kPR),
      acquires(3, "a", Mode::kEX)},
     releases(1, "a")},
    {"LastReleaseInAChainOfThree",
     {acquires(0, "a", Mode::kEX), acquires(0, "b", Mode::kEX), acquires(1, "c", Mode::kEX),
      acquires(0, "d", Mode::kEX)},
     releases(1, "c")},
    {"BuryANodeOfMany",
     {acquires(1, "a", Mode::kEX), acquires(1, "b", Mode::kPR), acquires(1, "c", Mode::kCW),
      acquires(0, "a", Mode::kEX), acquires(2, "b", Mode::kEX)},
     [](LockSegment& segment) {
       NodeSet wake = 0;
       segment.release_all(1, wake);
     }},
    {"Pin", {}, pins("a", 17)},
    {"PinWhatIsHeld", {acquires(0, "a", Mode::kPR)}, pins("a", 17)},
    {"ChangeAPin", {pins("a", 17)}, pins("a", 18)},
    {"Unpin",
     {pins("a", 17), pins("b", 17)},
     [](LockSegment& segment) { segment.unpin("space", "a"); }},
    {"Describe",
     {acquires(1, "a", Mode::kPR)},
     [](LockSegment& segment) {
       Presence who;
       who.comm = "make";
       who.note = "all";
       segment.describe(1, *segment.place_of("space", "a"), who);
     }},
    {"Repair",
     {acquires(1, "a", Mode::kEX), acquires(0, "a", Mode::kPR), acquires(2, "b", Mode::kPR),
      pins("c", 17), [](LockSegment& segment) { segment.begin(0); }},
     kNothing},
};
INSTANTIATE_TEST_SUITE_P(Changes, AnyInstruction, testing::ValuesIn(kScenarios),
                         [](const auto& scenario) { return scenario.param.name; });

}  // namespace
}  // namespace lockfs::shm::test
