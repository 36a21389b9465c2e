// SPDX-License-Identifier: MIT
// Names: what exists, and what is known of it by name.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/lock_name.h"
#include "fs/lock_fs.h"

namespace lockfs {

const std::vector<std::string>& info_files() {
  static const std::vector<std::string> names = {
      "version", "config", "traits", "locks.json", "waits", "metrics", std::string(kEventsName)};
  return names;
}

void LockFs::lookup(fuse_req_t req, NodeId parent, const char* name) {
  fuse_entry_param entry{};
  const std::string_view wanted = name;
  const NodeKind kind = NodeTable::kind(parent);
  if (kind == NodeKind::kRoot) {
    Lockspace* space = table_.find_lockspace(wanted);
    if (wanted == kInfoDirName) entry.ino = NodeTable::kInfoDir;
    if (space != nullptr) entry.ino = NodeTable::lockspace(space->id);
  } else if (kind == NodeKind::kInfoDir) {
    const auto& files = info_files();
    const auto file = std::find(files.begin(), files.end(), wanted);
    if (file != files.end()) {
      entry.ino = NodeTable::kFirstInfoFile + static_cast<NodeId>(file - files.begin());
    }
  } else if (kind == NodeKind::kLockspace) {
    Lockspace* space = table_.find_lockspace(NodeTable::space(parent));
    if (space == nullptr) return void(fuse_reply_err(req, ENOENT));
    const std::string lock_wanted = lock_name(wanted);
    if (lock_wanted.size() > space->backend->traits().max_name_bytes) {
      return void(fuse_reply_err(req, ENAMETOOLONG));
    }
    if (wanted != kControlName) {
      const Lock* lock = table_.find(*space, lock_wanted);
      if (lock != nullptr && lock->held()) return reply_here(req, space->id, lock_wanted);
      return table_.look(
          *space, lock_wanted,
          [this, req, id = space->id, lock_wanted](LockErrc result, const RemoteLock& remote) {
            reply_lookup(req, id, lock_wanted, {result, remote});
          });
    }
    entry.ino = NodeTable::control(space->id);
  }
  if (entry.ino == 0) return void(fuse_reply_err(req, ENOENT));
  describe(entry.ino, entry);
  if (fuse_reply_entry(req, &entry) != 0) nodes_.forget(entry.ino);
}

void LockFs::reply_here(fuse_req_t req, uint32_t space_id, const std::string& name) {
  fuse_entry_param entry{};
  describe(nodes_.add_lock(space_id, name), entry);
  if (fuse_reply_entry(req, &entry) != 0) nodes_.forget(entry.ino);
}

// A name is there while it is held, here or elsewhere, or pinned. When the answer about elsewhere
// is late, what is here decides: to take the lock asks again.
void LockFs::reply_lookup(fuse_req_t req, uint32_t space_id, const std::string& name,
                          const Painter::Elsewhere& elsewhere) {
  Lockspace* space = table_.find_lockspace(space_id);
  const Lock* lock = space != nullptr ? table_.find(*space, name) : nullptr;
  if ((lock != nullptr && lock->visible()) || elsewhere.lock.held()) {
    return reply_here(req, space_id, name);
  }
  const bool unknown = space != nullptr && elsewhere.result == LockErrc::kUnreachable;
  fuse_reply_err(req, unknown ? to_errno(elsewhere.result) : ENOENT);
}

void LockFs::getattr(fuse_req_t req, NodeId node) {
  struct stat attr {};
  if (!attributes(node, attr)) return void(fuse_reply_err(req, ESTALE));
  fuse_reply_attr(req, &attr, attribute_timeout(node));
}

void LockFs::setattr(fuse_req_t req, NodeId node, const struct stat& attr, int to_set) {
  const NodeKind kind = NodeTable::kind(node);
  if (kind == NodeKind::kLockspace) {
    Lockspace* space = table_.find_lockspace(NodeTable::space(node));
    if (space == nullptr) return void(fuse_reply_err(req, ESTALE));
    set_lockspace(req, *space, attr, to_set);
  } else if (kind == NodeKind::kLock) {
    const LockNode* lock = nodes_.lock(node);
    if (lock == nullptr) return void(fuse_reply_err(req, ESTALE));
    return set_lock(*lock, client_of(req), attr, to_set, [this, req, node](int error) {
      if (error != 0) return void(fuse_reply_err(req, error));
      getattr(req, node);
    });
  } else if ((to_set & ~FUSE_SET_ATTR_SIZE) != 0) {
    return void(fuse_reply_err(req, EPERM));
  }
  getattr(req, node);
}

void LockFs::set_lockspace(fuse_req_t req, Lockspace& space, const struct stat& attr, int to_set) {
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) space.mode = attr.st_mode & 07777;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) space.uid = attr.st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) space.gid = attr.st_gid;
  if (!log_limit_.admits(fuse_req_ctx(req)->uid, "lockspaces changed")) return;
  spdlog::info("lockspace {}: mode {:o} owner {}:{}, set by uid {} pid {}", space.name, space.mode,
               space.uid, space.gid, fuse_req_ctx(req)->uid, fuse_req_ctx(req)->pid);
}

// An explicit time pins the name (touch); a size of 0 is the O_TRUNC of shells, and nothing.
void LockFs::set_lock(const LockNode& node, const Client& client, const struct stat& attr,
                      int to_set, const std::function<void(int error)>& done) {
  constexpr int kTimes =
      FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_ATIME_NOW;
  Lockspace* space = table_.find_lockspace(node.space);
  if (space == nullptr) return done(ESTALE);
  if ((to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) return done(EPERM);
  if ((to_set & kTimes) != 0) {
    const auto rest = [=, this, name = node.name, id = node.space](LockErrc result) {
      if (result != LockErrc::kOk && result != LockErrc::kExists) {
        return done(to_errno(pinned(result, client, "").error().why));
      }
      set_lock({id, name, {}}, client, attr, to_set & ~kTimes, done);
    };
    return table_.pin(*space, node.name, {client.uid, 0666, false}, true, rest);
  }
  if ((to_set & FUSE_SET_ATTR_MODE) == 0) return done(0);
  const Lock* lock = table_.find(*space, node.name);
  if (lock == nullptr || !lock->pin) return done(EPERM);  // The lockspace's bits are a free name's.
  if (client.uid != lock->pin->uid && !owns(client, *space)) return done(EPERM);
  Pin changed = *lock->pin;
  changed.mode = static_cast<uint16_t>(attr.st_mode & 0666);
  table_.pin(*space, node.name, changed, false,
             [done](LockErrc result) { done(to_errno(result)); });
}

// The errno, said in the log, when there is a limit to one more lockspace; else 0. Its owner is who
// counts, also where root has given it away.
int LockFs::refuse_lockspace(const char* name, const Client& client) {
  const auto& spaces = table_.lockspaces();
  const auto owned =
      static_cast<uint64_t>(std::count_if(spaces.begin(), spaces.end(), [&](const auto& known) {
        return known.second->uid == client.uid;
      }));
  const bool all = spaces.size() >= options_.max_lockspaces;
  const bool own = client.uid != 0 && owned >= options_.max_lockspaces_per_user;
  if (!all && !own) return 0;
  if (log_limit_.admits(client.uid, "lockspaces refused")) {
    spdlog::warn("lockspace {} refused to uid {} pid {}: there are {}={} already", name, client.uid,
                 client.pid, all ? "max_lockspaces" : "max_lockspaces_per_user",
                 all ? options_.max_lockspaces : options_.max_lockspaces_per_user);
  }
  return all ? ENOSPC : EDQUOT;
}

void LockFs::mkdir(fuse_req_t req, NodeId parent, const char* name, mode_t mode) {
  if (NodeTable::kind(parent) != NodeKind::kRoot) return void(fuse_reply_err(req, EPERM));
  if (table_.find_lockspace(name) != nullptr) return void(fuse_reply_err(req, EEXIST));
  if (std::strlen(name) > backend_of(name).traits().max_lockspace_bytes)
    return void(fuse_reply_err(req, ENAMETOOLONG));
  const Client client = client_of(req);
  if (const int error = refuse_lockspace(name, client)) return void(fuse_reply_err(req, error));
  Lockspace& space = table_.add_lockspace(name, backend_of(name));
  space.uid = client.uid;
  space.gid = client.gid;
  space.mode = mode & 07777;
  space.capacity = options_.capacity;
  table_.join_lockspace(space, [this, req, id = space.id](LockErrc result) {
    Lockspace* made = table_.find_lockspace(id);
    if (result == LockErrc::kOk && made != nullptr) {
      fuse_entry_param entry{};
      describe(NodeTable::lockspace(id), entry);
      return void(fuse_reply_entry(req, &entry));
    }
    if (made != nullptr) table_.leave_lockspace(*made, false, [](LockErrc /*result*/) {});
    if (result == LockErrc::kOk) result = LockErrc::kNotFound;  // Removed again meanwhile.
    fuse_reply_err(req, to_errno(result == LockErrc::kTimedOut ? LockErrc::kUnreachable : result));
  });
}

void LockFs::rmdir(fuse_req_t req, NodeId parent, const char* name) {
  if (NodeTable::kind(parent) != NodeKind::kRoot) return void(fuse_reply_err(req, ENOTDIR));
  if (name == kInfoDirName || std::strcmp(name, "default") == 0) {
    return void(fuse_reply_err(req, EBUSY));
  }
  Lockspace* space = table_.find_lockspace(name);
  if (space == nullptr) return void(fuse_reply_err(req, ENOENT));
  table_.leave_lockspace(*space, false,
                         [req](LockErrc result) { fuse_reply_err(req, to_errno(result)); });
}

void LockFs::unlink(fuse_req_t req, NodeId parent, const char* name) {
  Lockspace* space = NodeTable::kind(parent) == NodeKind::kLockspace
                         ? table_.find_lockspace(NodeTable::space(parent))
                         : nullptr;
  if (space == nullptr || name == kControlName) return void(fuse_reply_err(req, EPERM));
  table_.look(
      *space, lock_name(name),
      [this, req, id = space->id, lock = lock_name(name)](
          LockErrc /*result*/, const RemoteLock& remote) { unlink_lock(req, id, lock, remote); });
}

void LockFs::unlink_lock(fuse_req_t req, uint32_t space_id, const std::string& name,
                         const RemoteLock& remote) {
  Lockspace* space = table_.find_lockspace(space_id);
  const Lock* lock = space != nullptr ? table_.find(*space, name) : nullptr;
  if (remote.held() || (lock != nullptr && lock->held())) return void(fuse_reply_err(req, EBUSY));
  if (lock == nullptr || !lock->pin) return void(fuse_reply_err(req, ENOENT));
  const Client client = client_of(req);
  if (client.uid != lock->pin->uid && !owns(client, *space)) {
    if (log_limit_.admits(client.uid, "rm refused")) {
      spdlog::warn("rm of {}/{} refused to uid {} pid {}: uid {} pinned it", space->name, name,
                   client.uid, client.pid, lock->pin->uid);
    }
    return void(fuse_reply_err(req, EPERM));
  }
  table_.unpin(*space, name, [req](LockErrc result) { fuse_reply_err(req, to_errno(result)); });
}

}  // namespace lockfs
