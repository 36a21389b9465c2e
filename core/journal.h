// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/lock_errc.h"
#include "core/mode.h"
#include "core/timer_queue.h"

namespace lockfs {

/// What happened to a lock, or to a lockspace's backend.
struct Happening {
  enum class Kind : uint8_t {
    kWaiting,      ///< A request waits.
    kGranted,      ///< `lasted` is how long it waited; a conversion is a grant.
    kReleased,     ///< `lasted` is how long it was held.
    kTimeout,      ///< A wait ended by its own timeout; here and below `lasted` is the wait.
    kInterrupted,  ///< ... by a signal, or its descriptor's end.
    kDeadlock,     ///< A request was refused, for it waits for itself, or would have.
    kRefused,      ///< A wait ended otherwise: `why`.
    kLost,         ///< A holder's lock was taken from it: `why`; `lasted` is how long it was held.
    kBroken,       ///< ... by a person's command.
    kBackendDown,  ///< The lockspace's backend is out of reach: `why`. No lock, no owner.
    kBackendUp,    ///< It is there again, or for the first time.
    kStarted,      ///< The mount's first: of no lockspace.
  };
  Kind kind = Kind::kGranted;
  TimePoint when;
  std::string lockspace;
  std::string lock;
  Share share;        ///< Held or wanted.
  pid_t thread = 0;   ///< Of the request, as the kernel tells it.
  pid_t process = 0;  ///< Its process; 0 when nobody had reason to look it up.
  uid_t uid = 0;
  uint64_t token = 0;
  bool waited = false;  ///< Of a grant: it had to wait. Of a refusal: its request waited.
  Duration lasted{};
  std::string why;
};

/// The last happenings of a mount. To note one costs a copy of two names, whether or not anybody
/// reads; who is slow loses the oldest, and can tell by the numbers how many.
class Journal {
 public:
  /// How many are kept: at 16,000 locks a second those of an eighth of a second, on a quiet
  /// machine those of days; 0.7 MB.
  static constexpr size_t kKept = 4096;

  /// A place for the next one, with nothing of the last that had it but room in its strings. To be
  /// filled at once.
  Happening& add(Happening::Kind kind, TimePoint when, std::string_view lockspace,
                 std::string_view lock);
  /// How many there were ever: the next one's number.
  uint64_t end() const { return end_; }
  /// The number of the oldest that is kept.
  uint64_t begin() const { return end_ > kKept ? end_ - kKept : 0; }
  /// One that is kept: begin() <= number < end().
  const Happening& at(uint64_t number) const { return ring_[number % kKept]; }

  /// Called at each add(), before the place is filled: only note that there is something.
  std::function<void()> on_new;

 private:
  std::vector<Happening> ring_;
  uint64_t end_ = 0;
};

/// "granted", "backend_down", ... as the stream of events has it.
std::string_view happening_name(Happening::Kind kind);

}  // namespace lockfs
