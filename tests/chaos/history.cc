// SPDX-License-Identifier: MIT
#include "tests/chaos/history.h"

#include <algorithm>
#include <array>
#include <limits>

namespace lockfs::test {
namespace {

constexpr size_t kMostWords = 20;

std::string in_words(const Grant& grant) {
  return std::string(name_of(grant.take)) + " of process " + std::to_string(grant.process) +
         " from " + std::to_string(grant.from) + " to " + std::to_string(grant.to) + ", token " +
         std::to_string(grant.token);
}

int64_t end_of(const Grant& grant) {
  return grant.to != 0 ? grant.to : std::numeric_limits<int64_t>::max();
}

// Walks the grants of all locks in the order in which they came back.
class Walk {
 public:
  std::vector<std::string> found;

  void step(const Grant& grant) {
    std::vector<Grant>& now = held_.at(grant.lock);
    std::erase_if(now, [&](const Grant& other) { return end_of(other) <= grant.from; });
    size_t slots = 0;
    for (const Grant& other : now) {
      if (!go_together(grant.take, other.take)) complain(grant, in_words(other));
      slots += other.take == Take::kSlot ? 1 : 0;
    }
    if (grant.take == Take::kSlot && slots >= kSlots) complain(grant, "too many slots");
    now.push_back(grant);
    look_at_token(grant);
  }

 private:
  void look_at_token(const Grant& grant) {
    if (!takes_token(grant.take) || grant.token == 0) return;
    uint64_t& last = tokens_.at(grant.lock);
    const bool right = grant.goes_on ? grant.token >= last : grant.token > last;
    if (!right) complain(grant, "the token before it was " + std::to_string(last));
    last = grant.token;
  }
  void complain(const Grant& grant, const std::string& because) {
    if (found.size() >= kMostWords) return;
    found.push_back("lock " + std::to_string(grant.lock) + ": " + in_words(grant) + "; but " +
                    because);
  }

  std::array<std::vector<Grant>, 256> held_;
  std::array<uint64_t, 256> tokens_{};
};

}  // namespace

const char* name_of(Take take) {
  constexpr std::array<const char*, kTakes> names = {"NL", "CR", "CW",         "PR",
                                                     "PW", "EX", "SLOT size=2"};
  return names.at(static_cast<size_t>(take));
}

bool go_together(Take a, Take b) {
  const Take weak = std::min(a, b);
  const Take strong = std::max(a, b);
  switch (weak) {
    case Take::kNL: return true;
    case Take::kCR: return strong <= Take::kPW;
    case Take::kCW: return strong == Take::kCW;
    case Take::kPR: return strong == Take::kPR;
    case Take::kSlot: return true;
    default: return false;
  }
}

bool takes_token(Take take) { return take == Take::kPW || take == Take::kEX; }

std::vector<std::string> violations(std::vector<Grant> history) {
  std::sort(history.begin(), history.end(),
            [](const Grant& a, const Grant& b) { return a.from < b.from; });
  Walk walk;
  for (const Grant& grant : history) walk.step(grant);
  return walk.found;
}

}  // namespace lockfs::test
