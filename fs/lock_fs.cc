// SPDX-License-Identifier: MIT
#include "fs/lock_fs.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

namespace lockfs {
namespace {

timespec to_timespec(uint64_t seconds) { return {static_cast<time_t>(seconds), 0}; }

// The permission bits that apply to a user: rwx.
unsigned bits_for(const Reader& reader, const Lockspace& space, mode_t mode) {
  if (reader.client.uid == 0) return 7;
  if (reader.client.uid == space.uid) return mode >> 6 & 7;
  const auto& groups = reader.groups;
  const bool in_group = reader.client.gid == space.gid ||
                        std::find(groups.begin(), groups.end(), space.gid) != groups.end();
  return in_group ? mode >> 3 & 7 : mode & 7;
}

std::vector<gid_t> groups_of(fuse_req_t req) {
  std::vector<gid_t> groups(256);
  int n = fuse_req_getgroups(req, static_cast<int>(groups.size()), groups.data());
  if (n > static_cast<int>(groups.size())) {
    groups.resize(static_cast<size_t>(n));
    n = fuse_req_getgroups(req, n, groups.data());
  }
  groups.resize(n > 0 ? std::min(static_cast<size_t>(n), groups.size()) : 0);
  return groups;
}

}  // namespace

Client client_of(fuse_req_t req) {
  const fuse_ctx* ctx = fuse_req_ctx(req);
  return {ctx->pid, ctx->uid, ctx->gid};
}

Reader reader_of(fuse_req_t req) { return {client_of(req), groups_of(req)}; }

double attribute_timeout(NodeId node) {
  switch (NodeTable::kind(node)) {
    case NodeKind::kRoot:
    case NodeKind::kInfoDir:
    case NodeKind::kLockspace: return 3600;
    case NodeKind::kLock: return 0.01;
    default: return 0;
  }
}

LockFs::LockFs(EventLoop& loop, const Options& options, Backends backends)
    : loop_(loop),
      options_(options),
      backends_(std::move(backends)),
      table_(loop.timers, processes_, *this),
      painter_(table_, processes_, loop.timers),
      log_limit_(loop.timers),
      events_(table_.journal,
              [this](uint64_t number, const Happening& happening) {
                return event_line(number, happening);
              }),
      long_texts_(loop) {
  // So that the stream is never empty: tail takes a file of no bytes for one that it cannot seek.
  table_.journal.add(Happening::Kind::kStarted, loop.timers.now(), {}, {});
  table_.journal.on_new = [this] { note_event(); };
  take_limits();
  table_.host = painter_.host();
  std::map<std::string, LockspaceOptions> spaces = options.lockspaces;
  spaces.try_emplace("default");
  for (const auto& [name, settings] : spaces) {
    Lockspace& space = table_.add_lockspace(name, backend_of(name));
    space.uid = getuid();
    space.gid = getgid();
    space.mode = settings.mode.value_or(0777);
    space.capacity = settings.capacity.value_or(options.capacity);
    ++joining_;
    table_.join_lockspace(space, [this, is_default = name == "default"](LockErrc result) {
      if (is_default) joined_ = result;
      if (--joining_ == 0 && when_joined_) when_joined_(joined_);
    });
  }
}

void LockFs::take_limits() {
  table_.quota.limits = {options_.max_opens_per_user, options_.max_waiters_per_user,
                         options_.max_names_per_user};
  table_.idle_limit = options_.idle_names;
}

void LockFs::when_joined(std::function<void(LockErrc)> ready) {
  if (joining_ == 0) return ready(joined_);
  when_joined_ = std::move(ready);
}

LockBackend& LockFs::backend_of(const std::string& lockspace) {
  const auto own = backends_.find(lockspace);
  return *(own != backends_.end() ? own->second : backends_.at(""));
}

// Who holds or waits through this descriptor: its own owner, or that of a POSIX or OFD lock.
const Owner* LockFs::own_of(const Handle& handle) const {
  const Owner* own = table_.find(handle.owner);
  const auto involved = [](const Owner& o) { return o.holding || o.wait || o.lost; };
  if (own == nullptr || involved(*own)) return own;
  for (const uint64_t lock_owner : handle.posix) {
    const auto known = posix_.find({own->lock, lock_owner});
    // lock_owner values come again: another process may have this one now.
    if (known == posix_.end() || known->second.through != HandleId{own->tag}) continue;
    const Owner* other = table_.find(known->second.owner);
    if (other != nullptr && involved(*other)) return other;
  }
  return own;
}

Lockspace* LockFs::space_of(const Handle& handle) {
  if (const LockNode* node = nodes_.lock(handle.node)) return table_.find_lockspace(node->space);
  return table_.find_lockspace(NodeTable::space(handle.node));
}

struct stat LockFs::lock_attributes(const Lockspace& space, std::string_view name,
                                    const Lock* lock) {
  struct stat attr {};
  attr.st_ino = lock_inode(space.id, name);
  attr.st_mode = S_IFREG | (space.mode & 0666);
  attr.st_nlink = 1;
  attr.st_uid = space.uid;
  attr.st_gid = space.gid;
  attr.st_blksize = 4096;
  attr.st_mtim = to_timespec(space.created);
  if (lock != nullptr && lock->pin) attr.st_mode &= S_IFREG | lock->pin->mode;
  if (lock != nullptr && lock->first != nullptr) {
    const int64_t since = painter_.since_epoch(lock->first->since).count();
    attr.st_mtim = {since / 1000000000, since % 1000000000};
  }
  attr.st_ctim = attr.st_atim = attr.st_mtim;
  return attr;
}

void LockFs::describe(NodeId node, fuse_entry_param& entry) {
  entry.ino = node;
  attributes(node, entry.attr);
  entry.attr_timeout = attribute_timeout(node);
  // A lock's name can end at any moment.
  entry.entry_timeout = NodeTable::kind(node) == NodeKind::kLock ? 0 : entry.attr_timeout;
}

// To those who read on, as tail -f does, a descriptor is the stream of the pictures it reads: as
// long as what was read, and longer when there is another picture. To all others it is empty.
off_t LockFs::stream_size(const LockNode& node) const {
  for (const HandleId id : node.handles) {
    const Handle* handle = handles_.find(id);
    const Owner* own = handle != nullptr ? table_.find(handle->owner) : nullptr;
    if (own == nullptr || handle->cursor.length == 0) continue;
    const size_t length = handle->cursor.length;
    const size_t next = handle->seen != own->lock->changes ? length : 0;
    return static_cast<off_t>(handle->cursor.base + length + next);
  }
  return 0;
}

bool LockFs::attributes(NodeId node, struct stat& attr) {
  const NodeKind kind = NodeTable::kind(node);
  if (kind == NodeKind::kLock) {
    const LockNode* lock = nodes_.lock(node);
    Lockspace* space = lock != nullptr ? table_.find_lockspace(lock->space) : nullptr;
    if (space == nullptr) return false;
    attr = lock_attributes(*space, lock->name, table_.find(*space, lock->name));
    attr.st_size = stream_size(*lock);
    return true;
  }
  attr = {};
  attr.st_ino = node;
  attr.st_nlink = 1;
  attr.st_blksize = 4096;
  const bool is_space = kind == NodeKind::kLockspace || kind == NodeKind::kControl;
  const Lockspace* space =
      is_space ? table_.find_lockspace(NodeTable::space(node)) : table_.find_lockspace("default");
  if (space == nullptr || kind == NodeKind::kGone) return false;
  attr.st_uid = is_space ? space->uid : getuid();
  attr.st_gid = is_space ? space->gid : getgid();
  attr.st_mtim = attr.st_ctim = attr.st_atim = to_timespec(space->created);
  switch (kind) {
    case NodeKind::kRoot: attr.st_mode = S_IFDIR | options_.root_mode; break;
    case NodeKind::kInfoDir: attr.st_mode = S_IFDIR | 0555; break;
    case NodeKind::kInfoFile:
      attr.st_mode = S_IFREG | 0444;
      if (!is_events(node)) break;
      // Nobody may make work by a stat() who may not read it.
      if (event_opens_ != 0) events_.catch_up();
      attr.st_mode = S_IFREG | 0400;
      attr.st_size = static_cast<off_t>(events_.size());
      break;
    case NodeKind::kLockspace: attr.st_mode = S_IFDIR | space->mode; break;
    default: attr.st_mode = S_IFREG | (space->mode & 0666); break;
  }
  if (S_ISDIR(attr.st_mode)) attr.st_nlink = 2;
  return true;
}

// A pin may have narrowed the lock's own bits.
bool LockFs::may_write(fuse_req_t req, const Lockspace& space, const Lock* lock) {
  const mode_t mode = lock != nullptr && lock->pin ? space.mode & lock->pin->mode : space.mode;
  const bool same_for_group = ((mode >> 3 ^ mode) & 2) == 0;  // Then its groups need no look.
  const Reader asks = same_for_group ? Reader{client_of(req), {}} : reader_of(req);
  return (bits_for(asks, space, mode) & 2) != 0;
}

// As by path: through the lockspace, and the bits that a pin has narrowed.
bool LockFs::may_read(const Reader& reader, const Lockspace& space) const {
  return (bits_for(reader, space, space.mode) & 5) == 5;
}

bool LockFs::may_read(const Reader& reader, const Lock& lock) const {
  const Lockspace& space = *lock.space;
  if (!may_read(reader, space)) return false;
  return !lock.pin || (bits_for(reader, space, lock.pin->mode) & 4) != 0;
}

bool LockFs::owns(const Client& client, const Lockspace& space) const {
  return client.uid == 0 || client.uid == space.uid;
}

std::string LockFs::holders_in_words(const Lock& lock, const Owner* self) {
  std::string out;
  size_t count = 0;
  for (const Owner* o = lock.first; o != nullptr; o = o->next) {
    if (o == self || !o->held.above_null() || ++count > 3) continue;
    const ProcessInfo& info = painter_.process(*o, o->client);
    const pid_t pid = info.process != 0 ? info.process : o->client.pid;
    const bool exited = pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
    const std::string_view state = o->closed ? "lingering"
                                   : exited  ? "exited, another process has its descriptor"
                                             : "";
    const std::string comm = info.comm + (info.comm.empty() || state.empty() ? "" : "; ");
    out += fmt::format("{}{} by pid {}", out.empty() ? "held in " : ", ", share_name(o->held), pid);
    if (!comm.empty() || !state.empty()) out += fmt::format(" ({}{})", comm, state);
  }
  if (count > 3) out += fmt::format(" and {} more", count - 3);
  if (!out.empty()) return out;
  return lock.space->backend->traits().other_nodes ? "held through another mount" : "not held now";
}

std::string LockFs::limit_in_words(const Client& client) const {
  const UserQuota& quota = table_.quota;
  std::string out;
  for (const auto& [what, name] : {std::pair{Quota::kWaiters, "max_waiters_per_user"},
                                   std::pair{Quota::kNames, "max_names_per_user"}}) {
    if (quota.may_take(client.uid, what)) continue;
    out += fmt::format("{}{}={}", out.empty() ? "" : ", ", name,
                       quota.limits.at(static_cast<size_t>(what)));
  }
  if (out.empty()) return "the backend has no room for one more lock; the log says more";
  return fmt::format("{} of this mount, for uid {}", out, client.uid);
}

std::string LockFs::explain(LockErrc result, const Owner& self, Share want, const Client& client) {
  const Lock& lock = *self.lock;
  const std::string holders = holders_in_words(lock, &self);
  const auto said = [&, name = lock.space->name + "/" +
                               std::string(lock.name())](const std::string& words) {
    return fmt::format("{} on {}: {}", share_name(want), name, words);
  };
  switch (result) {
    case LockErrc::kWouldBlock:
      return said(holders +
                  (lock.waiters() == 0 ? "" : fmt::format("; waiting: {}", lock.waiters())) +
                  ", and this request does not wait: leave out try, LOCK_NB or "
                  "O_NONBLOCK, or give it a timeout=");
    case LockErrc::kTimedOut:
      return said(holders +
                  " when the timeout passed: it may need a longer one; .lockfs/waits "
                  "shows what the holder itself waits for");
    case LockErrc::kInterrupted: return said("a signal ended the wait: ask again; " + holders);
    case LockErrc::kDeadlock:
      return said("waiting would be a deadlock, for its holder waits for what you hold; " +
                  holders +
                  "; release yours first (UN), ask again, and take locks in one order everywhere");
    case LockErrc::kInvalid:
      if (!want.is_slot()) {
        return said("the backend " + lock.space->backend->traits().name +
                    ": can have no lock of this name: it is too long there, or names something "
                    "else; take another one");
      }
      return said(fmt::format("the semaphore has size {} while it is in use; {}; ask for that size",
                              lock.slot_size, holders));
    case LockErrc::kLimit: return said("a limit is reached: " + limit_in_words(client));
    case LockErrc::kNotSupported:
      return said("the backend " + lock.space->backend->traits().name +
                  ": cannot do that between mounts; .lockfs/traits says what it can");
    case LockErrc::kUnreachable:
      return said("the backend " + lock.space->backend->traits().name +
                  ": is out of reach; .lockfs/traits and the log say why");
    default: return said(make_error_code(result).message());
  }
}

}  // namespace lockfs
