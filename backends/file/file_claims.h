// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_map>
#include <vector>

#include "backends/file/lock_directory.h"
#include "backends/file/lock_text.h"
#include "backends/file/mode_lock.h"
#include "core/lock_backend.h"

namespace lockfs {

/// The claims of one mount on the files of a directory, DIR/LOCKSPACE/NAME. Made for one thread
/// that may wait for the filesystem; the verbs are those of LockBackend, done when they return,
/// with their events called from within.
///
/// A claim that must wait is tried again when the kernel says that the file was closed or written
/// (inotify: a release does both after it has unlocked), and each kRetry in any case, for other
/// hosts' releases over NFS are not announced. What is held is looked at each
/// LockDirectory::kCheck: a directory that is renamed is not announced either.
class FileClaims {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kRetry = std::chrono::milliseconds(100);
  /// After an event: a dying process's file is closed an instant before its locks are gone.
  static constexpr auto kSoon = std::chrono::milliseconds(1);

  /// `node` names this mount among all that use the directory.
  FileClaims(std::string directory, std::string node, ClaimEvents& events);
  ~FileClaims();
  FileClaims(const FileClaims&) = delete;
  FileClaims& operator=(const FileClaims&) = delete;

  void acquire(ClaimId id, const std::string& lockspace, const std::string& name, Mode mode,
               bool now);
  void cancel(ClaimId id);
  void release(ClaimId id);
  void describe(ClaimId id, const Presence& who);
  void inspect(QueryId query, const std::string& lockspace, const std::string& name);
  void list(QueryId query, const std::string& lockspace);
  void pin(QueryId query, const std::string& lockspace, const std::string& name, const Pin& pin,
           bool fresh);
  void unpin(QueryId query, const std::string& lockspace, const std::string& name);

  /// As LockDirectory says; a change is an event.
  const std::string& trouble() const { return directory_.trouble(); }

  /// Can be read when files have changed; then call changed().
  int watch_fd() const { return inotify_; }
  void changed();
  /// When to call retry(); nullopt: nothing is held, and nobody waits.
  std::optional<Clock::time_point> next_retry() const;
  void retry();

 private:
  struct Claim {
    ClaimId id = ClaimId::kNone;
    std::string file;  ///< In directory_.
    int fd = -1;
    std::optional<ModeLock> lock;
    std::optional<size_t> slot;  ///< Its place in the file's text, locked.
    SlotText text;
    Mode wanted = Mode::kNL;  ///< Above NL: it waits for that.
    Clock::time_point retry_at;
    Clock::duration backoff = kSoon;
    int watch = -1;
  };

  LockErrc attempt(Claim& claim, Mode mode);
  void grant(Claim& claim, Mode before);
  void wait_for(Claim& claim, Mode mode);
  void attempt_again(Claim& claim);
  void fail(Claim& claim, LockErrc why);
  bool deadlocked(Claim& claim);
  bool take_slot(Claim& claim);
  void write_slot(Claim& claim);
  void watch(Claim& claim);
  void forget_file(Claim& claim);
  void erase(Claim& claim);
  bool lose_if_gone(Claim& claim);
  tl::expected<std::optional<RemoteLock>, LockErrc> look(const std::string& file, std::string name);
  LockErrc change_pin(const std::string& lockspace, const std::string& name,
                      const std::optional<Pin>& pin, bool fresh);

  LockDirectory directory_;
  std::string node_;
  ClaimEvents& events_;
  int inotify_ = -1;
  std::map<ClaimId, Claim> claims_;
  std::unordered_map<std::string, ClaimId> by_file_;
  std::unordered_map<int, ClaimId> by_watch_;
  Clock::time_point check_at_;  ///< When to look whether the files of what is held are gone.
};

}  // namespace lockfs
