// SPDX-License-Identifier: MIT
#include "backends/file/file_claims.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
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

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

bool is_deleted(int fd) {
  struct stat attr {};
  return fstat(fd, &attr) == 0 && attr.st_nlink == 0;
}

// Whoever can open a lock's file can hold its bytes: the directory's mode says who may.
mode_t mode_of(const std::string& directory) {
  struct stat attr {};
  return stat(directory.c_str(), &attr) == 0 ? attr.st_mode & 0777 : 0700;
}

int open_lock_file(const std::string& path, mode_t mode) {
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const int fd = open(path.c_str(), flags, mode & 0666);
  if (fd >= 0 || errno != ENOENT) return fd;
  const std::string folder = path.substr(0, path.rfind('/'));
  if (mkdir(folder.c_str(), mode) != 0 && errno != EEXIST) return -1;
  return open(path.c_str(), flags, mode & 0666);
}

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
    : directory_(std::move(directory)),
      mode_(mode_of(directory_)),
      node_(std::move(node)),
      events_(events),
      inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

FileClaims::~FileClaims() {
  while (!claims_.empty()) erase(claims_.begin()->second);
  if (inotify_ >= 0) close(inotify_);
}

std::string FileClaims::path_of(const std::string& lockspace, const std::string& name) const {
  return directory_ + "/" + file_name(lockspace) + "/" + file_name(name);
}

void FileClaims::acquire(ClaimId id, const std::string& lockspace, const std::string& name,
                         Mode mode, bool now) {
  auto [it, made] = claims_.try_emplace(id);
  Claim& claim = it->second;
  if (made) {
    claim.id = id;
    claim.path = path_of(lockspace, name);
    claim.text.node = node_;
  }
  const Mode before = claim.lock ? claim.lock->mode() : Mode::kNL;
  const LockErrc result = attempt(claim, mode);
  if (result == LockErrc::kOk) return grant(claim, before);
  if (result != LockErrc::kWouldBlock || now) return fail(claim, result);
  wait_for(claim, mode);
}

LockErrc FileClaims::attempt(Claim& claim, Mode mode) {
  for (int i = 0; i < kOpenTries; ++i) {
    if (claim.fd < 0) {
      claim.fd = open_lock_file(claim.path, mode_);
      if (claim.fd < 0) return errno == ENAMETOOLONG ? LockErrc::kInvalid : LockErrc::kUnreachable;
      claim.lock.emplace(claim.fd);
      by_path_[claim.path] = claim.id;
    }
    const bool held = claim.lock->mode() != Mode::kNL;
    const LockErrc result = claim.lock->convert(mode);
    // A lock on a file that has no name any more excludes nobody who comes later.
    if (held || result == LockErrc::kUnreachable || !is_deleted(claim.fd)) return result;
    forget_file(claim);
  }
  return LockErrc::kUnreachable;
}

void FileClaims::grant(Claim& claim, Mode before) {
  const Mode mode = claim.lock->mode();
  LockText text(claim.fd);
  TokenBlock tokens;
  if (is_exclusive(mode)) {
    tokens = text.next_tokens();
    if (tokens.end == 0) {  // The filesystem is full, or worse.
      claim.lock->convert(before);
      return fail(claim, LockErrc::kUnreachable);
    }
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
  claim.watch = inotify_add_watch(inotify_, path.c_str(), IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB);
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
    if (lose_if_deleted(claim)) continue;
    if (claim.wanted != Mode::kNL) {
      claim.backoff = kSoon;
      attempt_again(claim);
    }
  }
}

bool FileClaims::lose_if_deleted(Claim& claim) {
  if (!claim.lock || claim.lock->mode() == Mode::kNL || !is_deleted(claim.fd)) return false;
  const ClaimId id = claim.id;
  const std::string why = "its file " + claim.path + " was deleted";
  erase(claim);
  events_.lost(id, why);
  return true;
}

std::optional<FileClaims::Clock::time_point> FileClaims::next_retry() const {
  std::optional<Clock::time_point> next;
  for (const auto& [id, claim] : claims_) {
    if (claim.wanted != Mode::kNL && (!next || claim.retry_at < *next)) next = claim.retry_at;
  }
  return next;
}

void FileClaims::retry() {
  const Clock::time_point now = Clock::now();
  for (auto it = claims_.begin(); it != claims_.end();) {
    Claim& claim = (it++)->second;  // It may be erased.
    if (claim.wanted != Mode::kNL && claim.retry_at <= now) attempt_again(claim);
  }
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
  by_path_.erase(claim.path);
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
  lose_if_deleted(it->second);
}

std::optional<RemoteLock> FileClaims::look(const std::string& path, std::string name) {
  const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return std::nullopt;
  RemoteLock out;
  out.name = std::move(name);
  out.pin = LockText(fd.get()).pin();
  const Mode strongest = ModeLock::strongest_of_others(fd.get());
  for (auto& [slot, text] : LockText(fd.get()).slots()) {
    if (text.node == node_ || !slot_is_live(fd.get(), slot)) continue;
    const uint64_t token = std::max(text.token, text.who.token);
    if (text.held != Mode::kNL) out.claims.push_back({text.held, false, token, text.who});
    if (text.wants != Mode::kNL) out.claims.push_back({text.wants, true, 0, text.who});
  }
  const auto own = by_path_.find(path);
  const bool ours = own != by_path_.end() && claims_.at(own->second).lock->mode() != Mode::kNL;
  if (strongest != Mode::kNL && !ours && !out.held())
    out.claims.push_back({strongest, false, 0, {}});
  if (!out.pin && out.claims.empty()) return std::nullopt;
  return out;
}

void FileClaims::inspect(QueryId query, const std::string& lockspace, const std::string& name) {
  std::vector<RemoteLock> locks;
  if (auto lock = look(path_of(lockspace, name), name)) locks.push_back(std::move(*lock));
  events_.answered(query, LockErrc::kOk, std::move(locks));
}

void FileClaims::list(QueryId query, const std::string& lockspace) {
  std::vector<RemoteLock> locks;
  std::error_code error;
  const std::string folder = directory_ + "/" + file_name(lockspace);
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string file = it->path().filename();
    if (auto lock = look(it->path(), lock_name(file))) locks.push_back(std::move(*lock));
  }
  const bool none = !error || error == std::errc::no_such_file_or_directory;
  events_.answered(query, none ? LockErrc::kOk : LockErrc::kUnreachable, std::move(locks));
}

LockErrc FileClaims::change_pin(const std::string& lockspace, const std::string& name,
                                const std::optional<Pin>& pin, bool fresh) {
  const std::string path = path_of(lockspace, name);
  const Descriptor fd(pin ? open_lock_file(path, mode_)
                          : open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return !pin && errno == ENOENT ? LockErrc::kNotFound : LockErrc::kUnreachable;
  if (!lock_text(fd.get())) return LockErrc::kUnreachable;
  LockText text(fd.get());
  const bool has = text.pin().has_value();
  LockErrc result = LockErrc::kOk;
  if (pin && fresh && has) result = LockErrc::kExists;
  if (!pin && !has) result = LockErrc::kNotFound;
  if (result == LockErrc::kOk && !text.write_pin(pin)) result = LockErrc::kUnreachable;
  unlock_text(fd.get());
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
