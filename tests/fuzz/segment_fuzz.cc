// SPDX-License-Identifier: MIT
// Nodes that ask, release, keep and die on a segment into which bytes are written at random: no
// crash, no endless loop, and nobody is granted what another one holds.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "tests/backends/shm/segment_memory.h"

namespace lockfs::shm::test {
namespace {

constexpr uint32_t kMany = 4;
constexpr uint32_t kNames = 3;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}
  bool more() const { return data_ < end_; }
  uint8_t byte() { return more() ? *data_++ : uint8_t{0}; }

 private:
  const uint8_t* data_;
  const uint8_t* end_;
};

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// What a node believes to have of a lock.
struct Mine {
  std::optional<LockSegment::Place> place;
  Mode held = Mode::kNL;
  bool waiting = false;
  bool kept = false;
};

class Run {
 public:
  explicit Run(SegmentMemory& memory) : memory_(memory), segment_(memory.segment()) {
    LockSegment::format(memory_.base(), segment_.lock_count());
  }

  void step(Input& input) {
    const uint8_t what = input.byte();
    const uint32_t node = what % kMany;
    const uint32_t name = what / kMany % kNames;
    Mine& mine = mine_[{node, name}];
    switch (input.byte() % 8) {
      case 0:
      case 1:
      case 2: return acquire(node, name, mine, static_cast<Mode>(1 + input.byte() % 5));
      case 3: return release(node, mine);
      case 4: return keep_or_retake(node, mine);
      case 5: return look(node, mine);
      case 6: return die(node);
      default: return write(input);
    }
  }

 private:
  // As a mount does: mends once what can be mended; false when it cannot be.
  template <typename Change>
  bool change(uint32_t node, Change make) {
    for (int i = 0; i < 2; ++i) {
      try {
        if (!segment_.begin(node) || i == 1) segment_.repair(wake_);
        make();
        segment_.end();
        return true;
      } catch (const DamagedSegment&) {
      }
    }
    return false;
  }

  void acquire(uint32_t node, uint32_t name, Mine& mine, Mode mode) {
    if (mine.waiting) return;
    // As the lock table: never sideways, for until it knows of the grant it holds what it had.
    if (!mine.kept && !covers(mine.held, mode)) mode = join(mine.held, mode);
    auto turn = LockSegment::Turn::kRefused;
    const bool now = mode == Mode::kPW;
    if (std::exchange(mine.kept, false)) mine.held = Mode::kNL;  // It is asked for anew.
    const bool made = change(node, [&] {
      turn = segment_.acquire(node, "space", std::string(1, static_cast<char>('a' + name)), mode,
                              now, mine.place, wake_);
    });
    if (!made) return undecided(node, mine);
    mine.waiting = turn == LockSegment::Turn::kWaits;
    if (turn == LockSegment::Turn::kGranted) hold(node, name, mine, mode);
  }

  // As ShmBackend::undecided: what cannot be relied on is given up.
  void undecided(uint32_t node, Mine& mine) {
    try {
      if (mine.place && segment_.claim(node, *mine.place).held == mine.held) return;
    } catch (const DamagedSegment&) {
    }
    mine = {};
  }

  void hold(uint32_t node, uint32_t name, Mine& mine, Mode mode) {
    mine.held = mode;
    for (uint32_t other = 0; other < kMany; ++other) {
      const Mine& theirs = mine_[{other, name}];
      if (other != node && !theirs.kept && !compatible(theirs.held, mode)) {
        broken("a lock that is held was granted");
      }
    }
  }

  void release(uint32_t node, Mine& mine) {
    if (!mine.place || (mine.held == Mode::kNL && !mine.waiting)) return;
    change(node, [&] { segment_.release(node, *mine.place, wake_); });
    mine = {};
  }

  void keep_or_retake(uint32_t node, Mine& mine) {
    if (!mine.place || mine.waiting || mine.held == Mode::kNL) return;
    try {
      if (!mine.kept) {
        mine.kept = segment_.keep(node, *mine.place);
      } else if (segment_.retake(node, *mine.place, mine.held, mine.held)) {
        mine.kept = false;
        for (const auto& [key, theirs] : mine_) {
          if (theirs.place == mine.place && key.first != node && !theirs.kept &&
              !compatible(theirs.held, mine.held)) {
            broken("a lock that is held was retaken");
          }
        }
      } else {
        mine = {};
      }
    } catch (const DamagedSegment&) {
    }
  }

  // Has it been granted meanwhile?
  void look(uint32_t node, Mine& mine) {
    for (auto& [key, each] : mine_) {
      if (key.first != node || !each.waiting) continue;
      try {
        const Claim now = segment_.claim(node, *each.place);
        if (now.waits()) continue;
        each.waiting = false;
        hold(node, key.second, each, now.held);
      } catch (const DamagedSegment&) {
      }
    }
    if (mine.place) change(node, [&] { segment_.look_all(node, "space"); });
  }

  void die(uint32_t node) {
    // A claim of the dead is nobody's from now on, buried or not.
    for (auto& [key, each] : mine_) {
      if (key.first == node) each = {};
    }
    change((node + 1) % kMany, [&] { segment_.release_all(node, wake_); });
  }

  void write(Input& input) {
    const size_t at = 4096 + (size_t{input.byte()} << 8U | input.byte()) % (memory_.size() - 4096);
    auto* bytes = static_cast<uint8_t*>(memory_.base());
    for (size_t i = at; i < memory_.size() && i < at + 1 + input.byte() % 8; ++i) {
      bytes[i] = static_cast<uint8_t>(bytes[i] ^ (1 + input.byte()));
    }
  }

  SegmentMemory& memory_;
  LockSegment segment_;
  NodeSet wake_ = 0;
  std::map<std::pair<uint32_t, uint32_t>, Mine> mine_;
};

}  // namespace
}  // namespace lockfs::shm::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lockfs::shm::test;  // NOLINT
  static SegmentMemory memory(4);
  Input input(data, size);
  Run run(memory);
  while (input.more()) run.step(input);
  return 0;
}
