// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/dlm/kernel_locks.h"

namespace lockfs::dlm {

/// Fencing tokens of a lock's exclusive grants, over all nodes. A lock's name falls on one of
/// kCounters counters of its lockspace, each a DLM resource whose value block has the last token
/// given. Who holds the lock, and then takes the counter, gets a number greater than any that was
/// given for that lock before, for each of them was given under the counter too.
///
/// - Handed over in order, a counter goes on where it was.
/// - All mounts know a *floor* of each counter: before anybody gives a token that is half of
/// kReserve
///   above it, the floor is raised, by a message that all have heard.
/// - A counter that is new, or invalid because a mount or a node died with it, goes on kReserve
/// above
///   its floor, and above what it says.
/// - Nor below the sequence number of the cluster's membership, in the upper bits, and the clock,
/// in
///   the lower ones, in units that no mount can outrun. When all mounts that knew the floor have
///   left, the nodes' clocks have to agree within the time until the next one comes.
class Tokens {
 public:
  static constexpr size_t kCounters = 256;
  static constexpr uint64_t kReserve = uint64_t{1} << 24;

  /// How it speaks to the threads.
  struct Verbs {
    std::function<LockNo()> new_number;
    /// As KernelLocks::acquire().
    std::function<void(LockNo, const std::string& space, const std::string& resource, Mode mode,
                       const std::optional<LockValue>& write)>
        acquire;
    /// Answered by started().
    std::function<void(LockNo)> ask_ring_sequence;
    /// To all mounts, this one included: answered by floor().
    std::function<void(const std::string& space, size_t counter, uint64_t token)> announce;
    std::function<TimePoint()> now;
  };
  explicit Tokens(Verbs verbs) : verbs_(std::move(verbs)) {}

  /// The next token, if the counter is here; else 0, and nothing happens.
  uint64_t take(std::string_view space, std::string_view name);
  /// The next token, once the counter is here. 0: out of reach.
  using Given = std::function<void(uint64_t token)>;
  void next(std::string_view space, std::string_view name, Given given);
  /// This node gives the lock up, because another one wants it: that one will want the counter.
  void hand_over(std::string_view space, std::string_view name);
  /// Hands over what was not used for so long: a mount that is stopped can give nothing back.
  /// Returns when there is more to hand over; nullopt: no counter is here.
  std::optional<TimePoint> expire(Duration unused);
  /// What a mount has announced; `own`: this one.
  void floor(std::string_view space, size_t counter, uint64_t token, bool own);
  /// Of all counters that have one, for a mount that has just come.
  std::vector<std::pair<size_t, uint64_t>> floors(std::string_view space);
  /// What is announced will not be heard: we are cut off.
  void cut_off(std::string_view space);
  /// Others may have given tokens under counters that are here: they are to be passed.
  void doubt();
  /// The lockspace is left: the counters are handed over, who waits gets 0.
  void leave(std::string_view space);
  /// All lockspaces.
  void leave_all();

  // Events of KernelLocks; false if the lock is no counter.
  bool granted(LockNo no, Mode mode, const LockValue& value);
  bool refused(LockNo no);
  bool blocking(LockNo no);
  void started(LockNo no, uint64_t ring_sequence);  ///< 0: corosync does not answer.

  /// The least token at that membership and time (microseconds since 1970).
  static uint64_t base(uint64_t ring_sequence, uint64_t microseconds);

 private:
  struct Counter {
    LockNo no = LockNo::kNone;
    const std::string* space = nullptr;
    std::string resource;
    bool here = false;     ///< Held in EX.
    bool sure = false;     ///< `last` is no less than any token that was given.
    bool doubted = false;  ///< It was sure, and what is stored may be less than what was given.
    bool asking = false;   ///< A conversion, a floor or the ring's sequence is under way.
    bool announcing = false;
    bool wanted = false;  ///< By another node, since it is here.
    uint64_t last = 0;
    uint64_t floor = 0;
    TimePoint used;  ///< Last, while it is here.
    std::vector<Given> waiting;
  };
  using Counters = std::array<Counter, kCounters>;
  Counters& counters(std::string_view space);
  Counter& counter(std::string_view space, std::string_view name);
  uint64_t give(Counter& counter);
  static void distrust(Counter& counter);
  void raise(Counter& counter);
  void convert(Counter& counter, Mode mode);
  void serve(Counter& counter);
  void give_up(Counter& counter);
  void fail(Counter& counter);

  Verbs verbs_;
  std::map<std::string, std::unique_ptr<Counters>, std::less<>> spaces_;
  std::unordered_map<LockNo, Counter*> by_number_;
};

}  // namespace lockfs::dlm
