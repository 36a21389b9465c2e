// SPDX-License-Identifier: MIT
// The six modes as byte locks must exclude exactly what the DLM's table says, also on the way from
// one to the other.
#include "backends/file/mode_lock.h"

#include <gmock/gmock.h>

#include <array>
#include <random>
#include <vector>

#include "tests/backends/temporary_file.h"

namespace lockfs {
namespace {

constexpr std::array kModes = {Mode::kNL, Mode::kCR, Mode::kCW, Mode::kPR, Mode::kPW, Mode::kEX};

class Descriptor {
 public:
  explicit Descriptor(const test::TemporaryFile& file) : fd_(file.open_again()), lock_(fd_) {}
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ModeLock& lock() { return lock_; }
  int fd() const { return fd_; }

 private:
  int fd_;
  ModeLock lock_;
};

std::string pair_name(Mode one, Mode other) {
  return std::string(mode_name(one)) + " against " + std::string(mode_name(other));
}

TEST(ModeLock, EveryPairIsThatOfTheDlm) {
  for (const Mode held : kModes) {
    for (const Mode wanted : kModes) {
      const test::TemporaryFile file;
      Descriptor one(file);
      Descriptor two(file);
      ASSERT_EQ(one.lock().convert(held), LockErrc::kOk);
      EXPECT_EQ(two.lock().convert(wanted),
                compatible(held, wanted) ? LockErrc::kOk : LockErrc::kWouldBlock)
          << pair_name(wanted, held);
    }
  }
}

// After any conversion, made or refused, a third descriptor finds exactly what is said to be held.
TEST(ModeLock, EveryConversionLeavesExactlyTheModeItSays) {
  for (const Mode other : kModes) {
    for (const Mode from : kModes) {
      if (!compatible(other, from)) continue;
      for (const Mode to : kModes) {
        const test::TemporaryFile file;
        Descriptor one(file);
        Descriptor two(file);
        ASSERT_EQ(two.lock().convert(other), LockErrc::kOk);
        ASSERT_EQ(one.lock().convert(from), LockErrc::kOk);
        const LockErrc result = one.lock().convert(to);
        EXPECT_EQ(result, compatible(other, to) ? LockErrc::kOk : LockErrc::kWouldBlock)
            << pair_name(to, other) << " from " << mode_name(from);
        EXPECT_EQ(one.lock().mode(), result == LockErrc::kOk ? to : from);
        ASSERT_EQ(two.lock().convert(Mode::kNL), LockErrc::kOk);
        for (const Mode third : kModes) {
          Descriptor last(file);
          EXPECT_EQ(last.lock().convert(third) == LockErrc::kOk,
                    compatible(third, one.lock().mode()))
              << pair_name(third, one.lock().mode()) << " after " << mode_name(from) << " to "
              << mode_name(to);
        }
      }
    }
  }
}

TEST(ModeLock, TheStrongestOfTheOthersIsSeen) {
  for (const Mode held : kModes) {
    const test::TemporaryFile file;
    Descriptor one(file);
    Descriptor two(file);
    ASSERT_EQ(one.lock().convert(held), LockErrc::kOk);
    EXPECT_EQ(ModeLock::strongest_of_others(two.fd()), held);
    EXPECT_EQ(ModeLock::strongest_of_others(one.fd()), Mode::kNL) << "its own is none of others'";
  }
}

// A random walk of eight descriptors, with the table of modes as oracle.
TEST(ModeLock, ManyDescriptorsNeverHoldWhatExcludesEachOther) {
  const test::TemporaryFile file;
  std::vector<std::unique_ptr<Descriptor>> all;
  for (int i = 0; i < 8; ++i) all.push_back(std::make_unique<Descriptor>(file));
  std::mt19937 random(20261127);
  int granted = 0;
  int refused = 0;
  for (int step = 0; step < 20000; ++step) {
    Descriptor& one = *all[random() % all.size()];
    const Mode to = kModes[random() % kModes.size()];
    bool fits = true;
    for (const auto& other : all) {
      if (other.get() != &one && !compatible(other->lock().mode(), to)) fits = false;
    }
    const LockErrc result = one.lock().convert(to);
    ASSERT_EQ(result, fits ? LockErrc::kOk : LockErrc::kWouldBlock) << "step " << step;
    ++(fits ? granted : refused);
  }
  EXPECT_GT(granted, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(ModeLock, AClosedDescriptorHoldsNothing) {
  const test::TemporaryFile file;
  {
    Descriptor one(file);
    ASSERT_EQ(one.lock().convert(Mode::kCW), LockErrc::kOk);
  }
  Descriptor two(file);
  EXPECT_EQ(two.lock().convert(Mode::kEX), LockErrc::kOk);
}

}  // namespace
}  // namespace lockfs
