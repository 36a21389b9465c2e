// SPDX-License-Identifier: MIT
// Directories: what is in them, as each reader sees it from its first entry to the end.
#include <spdlog/spdlog.h>

#include "core/lock_name.h"
#include "fs/lock_fs.h"

namespace lockfs {
namespace {

constexpr size_t kLongestName = 255;  // Of a file, whatever a lock elsewhere is called.

// Others may lock by names that no file can have; the kernel takes one such for a broken directory.
bool names_file(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName && name != "." && name != ".." &&
         name != kControlName && name.find('\0') == std::string_view::npos;
}

}  // namespace

// What other nodes have is asked for here: READDIR holds the directory in the kernel while it
// waits.
void LockFs::opendir(fuse_req_t req, NodeId node, fuse_file_info* fi) {
  const NodeKind kind = NodeTable::kind(node);
  const Lockspace* space =
      kind == NodeKind::kLockspace ? table_.find_lockspace(NodeTable::space(node)) : nullptr;
  if (kind != NodeKind::kRoot && kind != NodeKind::kInfoDir && space == nullptr) {
    return void(fuse_reply_err(req, ENOENT));
  }
  if (!take_open(client_of(req))) return void(fuse_reply_err(req, ENOLCK));
  const auto [id, dir] = directories_.emplace();
  dir.node = node;
  dir.uid = fuse_req_ctx(req)->uid;
  fi->fh = id;
  if (space == nullptr || !space->backend->traits().other_nodes) {
    if (fuse_reply_open(req, fi) != 0) drop_directory(id);
    return;
  }
  list_names(id, [this, req, id = id, fi = *fi](int error) {
    if (error == 0) directories_.find(id)->unread = true;
    if ((error != 0 ? fuse_reply_err(req, error) : fuse_reply_open(req, &fi)) == 0 && error == 0) {
      return;
    }
    drop_directory(id);
  });
}

// Makes the directory's list anew; `done` gets an errno, or 0.
void LockFs::list_names(uint64_t id, const std::function<void(int error)>& done) {
  const NodeId node = directories_.find(id)->node;
  Lockspace* space = NodeTable::kind(node) == NodeKind::kLockspace
                         ? table_.find_lockspace(NodeTable::space(node))
                         : nullptr;
  const auto keep = [=, this](LockErrc /*result*/, const std::vector<RemoteLock>& remote) {
    Directory* dir = directories_.find(id);
    done(dir != nullptr ? keep_names(*dir, names_in(dir->node, remote)) : EBADF);
  };
  if (space == nullptr) return keep(LockErrc::kOk, {});
  table_.look_all(*space, keep);
}

NameList LockFs::names_in(NodeId node, const std::vector<RemoteLock>& remote) {
  NameList names;
  const auto add = [&](std::string_view name, NodeId id) {
    struct stat attr {};
    if (attributes(id, attr)) names.add(name, attr.st_ino, attr.st_mode);
  };
  add(".", node);
  add("..", NodeTable::kRoot);
  const NodeKind kind = NodeTable::kind(node);
  if (kind == NodeKind::kRoot) {
    add(kInfoDirName, NodeTable::kInfoDir);
    for (const auto& [id, space] : table_.lockspaces()) add(space->name, NodeTable::lockspace(id));
  } else if (kind == NodeKind::kInfoDir) {
    NodeId id = NodeTable::kFirstInfoFile;
    for (const std::string& name : info_files()) add(name, id++);
  } else if (const Lockspace* space = table_.find_lockspace(NodeTable::space(node))) {
    add(kControlName, NodeTable::control(space->id));
    add_locks(*space, remote, names);
  }
  names.pack();
  return names;
}

void LockFs::add_locks(const Lockspace& space, const std::vector<RemoteLock>& remote,
                       NameList& names) {
  const auto add = [&](const std::string& name) {
    const std::string file = file_name(name);
    if (!names_file(file) || name.size() > space.backend->traits().max_name_bytes) return;
    names.add(file, lock_inode(space.id, name), S_IFREG);
  };
  for (const auto& [name, lock] : space.locks) {
    if (lock.visible()) add(name);
  }
  for (const RemoteLock& lock : remote) {
    const auto local = space.locks.find(lock.name);
    if (!lock.held() || (local != space.locks.end() && local->second.visible())) continue;
    add(lock.name);
  }
}

// An errno where its opener has too much of it open, else 0.
int LockFs::keep_names(Directory& dir, NameList names) {
  drop_names(dir);
  if (!take_bytes(dir.uid, names.bytes())) return ENOLCK;
  dir.names = std::move(names);
  return 0;
}

void LockFs::drop_names(Directory& dir) {
  give_bytes(dir.uid, dir.names.bytes());
  dir.names = {};
  dir.names.pack();  // A string that is assigned an empty one keeps its room.
}

void LockFs::drop_directory(uint64_t id) {
  Directory* dir = directories_.find(id);
  if (dir == nullptr) return;
  drop_names(*dir);
  table_.quota.give(dir->uid, Quota::kOpens);
  directories_.erase(id);
}

// A list is made for the first read, and again after a rewind; who has read to its end needs it no
// more.
void LockFs::readdir(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi) {
  Directory* dir = directories_.find(fi->fh);
  if (dir == nullptr) return void(fuse_reply_err(req, EBADF));
  const auto from = static_cast<size_t>(offset);
  const bool listed = dir->names.size() != 0;
  if (!listed && from != 0 && from >= dir->end) return void(fuse_reply_buf(req, nullptr, 0));
  if (listed && (from != 0 || std::exchange(dir->unread, false))) {
    return reply_names(req, fi->fh, size, from);
  }
  list_names(fi->fh, [=, this, id = fi->fh](int error) {
    if (error != 0) return void(fuse_reply_err(req, error));
    reply_names(req, id, size, from);
  });
}

void LockFs::reply_names(fuse_req_t req, uint64_t id, size_t size, size_t from) {
  Directory& dir = *directories_.find(id);
  std::vector<char> buffer(size);
  size_t used = 0;
  for (size_t i = from; i < dir.names.size(); ++i) {
    const NameList::Entry entry = dir.names.at(i);
    struct stat attr {};
    attr.st_ino = entry.inode;
    attr.st_mode = entry.type;
    const size_t needed = fuse_add_direntry(req, buffer.data() + used, size - used, entry.name,
                                            &attr, static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  if (from >= dir.names.size()) {
    dir.end = dir.names.size();
    drop_names(dir);
  }
  fuse_reply_buf(req, buffer.data(), used);
}

void LockFs::releasedir(fuse_req_t req, const fuse_file_info* fi) {
  drop_directory(fi->fh);
  fuse_reply_err(req, 0);
}

bool LockFs::take_bytes(uid_t uid, size_t bytes) {
  constexpr size_t kMost = size_t{256} << 20;
  if (bytes == 0 || uid == 0) return true;
  size_t& kept = kept_bytes_[uid];
  if (kept != 0 && kept + bytes > kMost) {  // A single one may be as large as it is.
    if (log_limit_.admits(uid, "reads refused")) {
      spdlog::warn(
          "read refused to uid {}: what it has begun to read, and not to the end, takes "
          "more than 256 MiB",
          uid);
    }
    return false;
  }
  kept += bytes;
  return true;
}

void LockFs::give_bytes(uid_t uid, size_t bytes) {
  const auto kept = kept_bytes_.find(uid);
  if (bytes == 0 || kept == kept_bytes_.end()) return;
  kept->second -= bytes;
  if (kept->second == 0) kept_bytes_.erase(kept);
}

}  // namespace lockfs
