// SPDX-License-Identifier: MIT
#include "backends/file/file_claims.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include "backends/conversion_deadlock.h"
#include "core/lock_name.h"

namespace lockfs {
namespace {

constexpr int64_t kAllEnd = kModeBytesCwEnd;
// How long a change of the text waits for another mount's, which takes microseconds, unless it was
// stopped in the midst of it.
constexpr int kTextTries = 50;
constexpr auto kTextPause = std::chrono::milliseconds(1);
// Files that are deleted under our hands as often as this are somebody's mistake.
constexpr int kOpenTries = 3;
constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF;

bool lock_text(int fd) {
  for (int i = 0; i < kTextTries; ++i) {
    const LockErrc result = set_bytes(fd, ByteLock::kWrite, kTextByte, kTextByte);
    if (result != LockErrc::kWouldBlock) return result == LockErrc::kOk;
    std::this_thread::sleep_for(kTextPause);
  }
  return false;
}

void unlock_text(int fd) { set_bytes(fd, ByteLock::kNone, kTextByte, kTextByte); }

bool slot_is_live(int fd, size_t slot) {
  const int64_t byte = kSlotBytes + static_cast<int64_t>(slot);
  return bytes_are_taken(fd, ByteLock::kWrite, byte, byte);
}

}  // namespace

FileClaims::FileClaims(std::string directory, std::string node, ClaimEvents& events)
    : directory_(std::move(directory), [&events] { events.reach_changed(); }),
      node_(std::move(node)),
      events_(events),
      inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

FileClaims::~FileClaims() {
  while (!claims_.empty()) erase(claims_.begin()->second);
  if (inotify_ >= 0) close(inotify_);
}

void FileClaims::acquire(ClaimId id, const std::string& lockspace, const std::string& name,
                         Mode mode, bool now) {
  auto [it, made] = claims_.try_emplace(id);
  Claim& claim = it->second;
  if (made) {
    claim.id = id;
    claim.file = LockDirectory::file_of(lockspace, name);
    claim.text.node = node_;
  }
  if (lose_if_gone(claim)) return;
  const Mode before = claim.lock ? claim.lock->mode() : Mode::kNL;
  const LockErrc result = attempt(claim, mode);
  if (result == LockErrc::kOk) return grant(claim, before);
  if (result != LockErrc::kWouldBlock || now) return fail(claim, result);
  wait_for(claim, mode);
}

LockErrc FileClaims::attempt(Claim& claim, Mode mode) {
  const bool held = claim.lock && claim.lock->mode() != Mode::kNL;
  for (int i = 0; i < kOpenTries; ++i) {
    if (claim.fd < 0) {
      auto fd = directory_.open(claim.file, LockDirectory::For::kMaking);
      if (!fd) return fd.error();
      claim.fd = fd->release();
      claim.lock.emplace(claim.fd);
      by_file_[claim.file] = claim.id;
    }
    const LockErrc result = claim.lock->convert(mode);
    // A lock on a file that others do not open by its name excludes none of them.
    if (result == LockErrc::kUnreachable) return directory_.failed(claim.file, errno);
    if (held) return result;
    if (!directory_.gone(claim.file, claim.fd)) return result;
    forget_file(claim);
  }
  return directory_.out_of_reach(directory_.path_of(claim.file) +
                                 ": it is deleted again and again");
}

void FileClaims::grant(Claim& claim, Mode before) {
  const Mode mode = claim.lock->mode();
  LockText text(claim.fd);
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    tokens = text.next_tokens();
    if (tokens.end == 0) {  // The filesystem is full, or worse.
      const LockErrc why = directory_.failed(claim.file, errno);
      claim.lock->convert(before);
      return fail(claim, why);
    }
    directory_.written();
    claim.text.token = tokens.next;
  }
  if (!covers(mode, before)) text.touch();  // Others may go now.
  claim.wanted = Mode::kNL;
  if (claim.slot) write_slot(claim);
  events_.granted(claim.id, mode, tokens);
}

// The end of an acquire without a grant.
void FileClaims::fail(Claim& claim, LockErrc why) {
  const ClaimId id = claim.id;
  const bool waited = std::exchange(claim.wanted, Mode::kNL) != Mode::kNL;
  if (!claim.lock || claim.lock->mode() == Mode::kNL) {
    erase(claim);
  } else if (waited && claim.slot) {
    write_slot(claim);
  }
  events_.failed(id, why);
}

void FileClaims::wait_for(Claim& claim, Mode mode) {
  claim.wanted = mode;
  const bool text = lock_text(claim.fd);
  if (take_slot(claim)) write_slot(claim);
  const bool never = claim.lock->mode() != Mode::kNL && deadlocked(claim);
  if (text) unlock_text(claim.fd);
  if (never) return fail(claim, LockErrc::kDeadlock);
  watch(claim);
  claim.backoff = kSoon;
  attempt_again(claim);  // It may have been released before we watched.
}

void FileClaims::attempt_again(Claim& claim) {
  if (lose_if_gone(claim)) return;
  const Mode before = claim.lock ? claim.lock->mode() : Mode::kNL;
  const LockErrc result = attempt(claim, claim.wanted);
  if (result == LockErrc::kOk) return grant(claim, before);
  if (result != LockErrc::kWouldBlock) return fail(claim, result);
  if (!claim.slot && take_slot(claim)) write_slot(claim);  // It is another file now.
  watch(claim);
  claim.retry_at = Clock::now() + std::min<Clock::duration>(claim.backoff, kRetry);
  claim.backoff = std::min<Clock::duration>(claim.backoff * 4, kRetry);
}

// Of those that convert: does one that we wait for wait for us, in the end? The text's byte is
// locked, so that of two the later sees the other.
bool FileClaims::deadlocked(Claim& claim) {
  std::vector<Conversion> others;
  for (const auto& [slot, text] : LockText(claim.fd).slots()) {
    if (text.wants == Mode::kNL || text.held == Mode::kNL || slot == claim.slot) continue;
    if (slot_is_live(claim.fd, slot)) others.push_back({text.held, text.wants});
  }
  return conversions_deadlock({claim.lock->mode(), claim.wanted}, others);
}

bool FileClaims::take_slot(Claim& claim) {
  for (size_t i = 0; i < LockText::kSlots && !claim.slot; ++i) {
    const int64_t byte = kSlotBytes + static_cast<int64_t>(i);
    const LockErrc result = set_bytes(claim.fd, ByteLock::kWrite, byte, byte);
    if (result == LockErrc::kUnreachable) return false;
    if (result == LockErrc::kOk) claim.slot = i;
  }
  return claim.slot.has_value();
}

void FileClaims::write_slot(Claim& claim) {
  claim.text.held = claim.lock->mode();
  claim.text.wants = claim.wanted;
  LockText(claim.fd).write_slot(*claim.slot, claim.text);
}

void FileClaims::watch(Claim& claim) {
  if (claim.watch >= 0) return;
  const std::string path = "/proc/self/fd/" + std::to_string(claim.fd);
  claim.watch = inotify_add_watch(inotify_, path.c_str(), kEvents);
  if (claim.watch >= 0) by_watch_[claim.watch] = claim.id;
}

void FileClaims::changed() {
  alignas(inotify_event) std::array<char, 16384> buffer{};
  std::vector<ClaimId> touched;
  for (ssize_t n = 0; (n = read(inotify_, buffer.data(), buffer.size())) > 0;) {
    for (ssize_t at = 0; at < n;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      const auto known = by_watch_.find(event->wd);
      if (known == by_watch_.end()) continue;
      if (std::find(touched.begin(), touched.end(), known->second) == touched.end()) {
        touched.push_back(known->second);
      }
    }
  }
  for (const ClaimId id : touched) {
    const auto it = claims_.find(id);
    if (it == claims_.end()) continue;
    Claim& claim = it->second;
    if (lose_if_gone(claim)) continue;
    if (claim.wanted != Mode::kNL) {
      claim.backoff = kSoon;
      attempt_again(claim);
    }
  }
}

bool FileClaims::lose_if_gone(Claim& claim) {
  if (!claim.lock || claim.lock->mode() == Mode::kNL) return false;
  const auto why = directory_.gone(claim.file, claim.fd);
  if (!why) return false;
  const ClaimId id = claim.id;
  erase(claim);
  events_.lost(id, "its file " + *why);
  return true;
}

std::optional<FileClaims::Clock::time_point> FileClaims::next_retry() const {
  if (claims_.empty()) return std::nullopt;
  Clock::time_point next = check_at_;
  for (const auto& [id, claim] : claims_) {
    if (claim.wanted != Mode::kNL) next = std::min(next, claim.retry_at);
  }
  return next;
}

void FileClaims::retry() {
  const Clock::time_point now = Clock::now();
  const bool check = check_at_ <= now;
  for (auto it = claims_.begin(); it != claims_.end();) {
    Claim& claim = (it++)->second;  // It may be erased.
    if (check && lose_if_gone(claim)) continue;
    if (claim.wanted != Mode::kNL && claim.retry_at <= now) attempt_again(claim);
  }
  if (check) check_at_ = Clock::now() + LockDirectory::kCheck;
}

void FileClaims::cancel(ClaimId id) {
  const auto it = claims_.find(id);
  if (it != claims_.end() && it->second.wanted != Mode::kNL) {
    fail(it->second, LockErrc::kInterrupted);
  }
}

void FileClaims::release(ClaimId id) {
  const auto it = claims_.find(id);
  if (it != claims_.end()) erase(it->second);
}

void FileClaims::forget_file(Claim& claim) {
  if (claim.watch >= 0) {
    inotify_rm_watch(inotify_, claim.watch);
    by_watch_.erase(std::exchange(claim.watch, -1));
  }
  if (claim.fd < 0) return;
  // Unlocked first: the close tells others to look.
  set_bytes(claim.fd, ByteLock::kNone, kLockedBytes, kAllEnd);
  close(std::exchange(claim.fd, -1));
  by_file_.erase(claim.file);
  claim.lock.reset();
  claim.slot.reset();
}

void FileClaims::erase(Claim& claim) {
  forget_file(claim);
  claims_.erase(claim.id);
}

void FileClaims::describe(ClaimId id, const Presence& who) {
  const auto it = claims_.find(id);
  if (it == claims_.end() || it->second.fd < 0) return;
  it->second.text.who = who;
  if (take_slot(it->second)) write_slot(it->second);
  watch(it->second);  // For the end of the file, which may have come.
  lose_if_gone(it->second);
}

// None: it is free and has no pin, or can be no lock.
tl::expected<std::optional<RemoteLock>, LockErrc> FileClaims::look(const std::string& file,
                                                                   std::string name) {
  const auto fd = directory_.open(file, LockDirectory::For::kLooking);
  if (!fd && fd.error() == LockErrc::kUnreachable) return tl::make_unexpected(fd.error());
  if (!fd) return std::nullopt;
  RemoteLock out;
  out.name = std::move(name);
  out.pin = LockText(fd->get()).pin();
  const Mode strongest = ModeLock::strongest_of_others(fd->get());
  for (auto& [slot, text] : LockText(fd->get()).slots()) {
    if (text.node == node_ || !slot_is_live(fd->get(), slot)) continue;
    const uint64_t token = std::max(text.token, text.who.token);
    if (text.held != Mode::kNL) out.claims.push_back({text.held, false, token, text.who});
    if (text.wants != Mode::kNL) out.claims.push_back({text.wants, true, 0, text.who});
  }
  const auto own = by_file_.find(file);
  const bool ours = own != by_file_.end() && claims_.at(own->second).lock->mode() != Mode::kNL;
  if (strongest != Mode::kNL && !ours && !out.held())
    out.claims.push_back({strongest, false, 0, {}});
  if (!out.pin && out.claims.empty()) return std::nullopt;
  return out;
}

void FileClaims::inspect(QueryId query, const std::string& lockspace, const std::string& name) {
  auto lock = look(LockDirectory::file_of(lockspace, name), name);
  if (!lock) return events_.answered(query, lock.error(), {});
  std::vector<RemoteLock> locks;
  if (*lock) locks.push_back(std::move(**lock));
  events_.answered(query, LockErrc::kOk, std::move(locks));
}

void FileClaims::list(QueryId query, const std::string& lockspace) {
  const auto files = directory_.files(lockspace);
  if (!files) return events_.answered(query, files.error(), {});
  std::vector<RemoteLock> locks;
  LockErrc result = LockErrc::kOk;
  for (const std::string& file : *files) {
    auto lock = look(file, lock_name(file.substr(file.find('/') + 1)));
    if (!lock) {
      result = lock.error();
    } else if (*lock) {
      locks.push_back(std::move(**lock));
    }
  }
  events_.answered(query, result, std::move(locks));
}

LockErrc FileClaims::change_pin(const std::string& lockspace, const std::string& name,
                                const std::optional<Pin>& pin, bool fresh) {
  const std::string file = LockDirectory::file_of(lockspace, name);
  const auto fd =
      directory_.open(file, pin ? LockDirectory::For::kMaking : LockDirectory::For::kWriting);
  if (!fd) return fd.error();
  if (!lock_text(fd->get())) return directory_.failed(file, errno);
  LockText text(fd->get());
  const bool has = text.pin().has_value();
  LockErrc result = LockErrc::kOk;
  if (pin && fresh && has) result = LockErrc::kExists;
  if (!pin && !has) result = LockErrc::kNotFound;
  if (result == LockErrc::kOk) {
    if (text.write_pin(pin)) {
      directory_.written();
    } else {
      result = directory_.failed(file, errno);
    }
  }
  unlock_text(fd->get());
  return result;
}

void FileClaims::pin(QueryId query, const std::string& lockspace, const std::string& name,
                     const Pin& pin, bool fresh) {
  events_.answered(query, change_pin(lockspace, name, pin, fresh), {});
}

void FileClaims::unpin(QueryId query, const std::string& lockspace, const std::string& name) {
  events_.answered(query, change_pin(lockspace, name, std::nullopt, false), {});
}

}  // namespace lockfs
