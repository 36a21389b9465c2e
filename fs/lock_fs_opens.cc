// SPDX-License-Identifier: MIT
// The life of an open file description: made by CREATE or OPEN, ended by RELEASE.
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>

#include "core/lock_name.h"
#include "fs/lock_fs.h"

namespace lockfs {

bool LockFs::take_open(const Client& client) {
  if (table_.quota.take(client.uid, Quota::kOpens)) return true;
  if (log_limit_.admits(client.uid, "opens refused")) {
    spdlog::warn("open refused to uid {} pid {}: max_opens_per_user={} is reached", client.uid,
                 client.pid, options_.max_opens_per_user);
  }
  return false;
}

std::pair<HandleId, Handle*> LockFs::add_handle(fuse_req_t req, NodeId node, fuse_file_info* fi) {
  const Client client = client_of(req);
  if (!take_open(client)) return {HandleId::kNone, nullptr};
  auto [id, handle] = handles_.emplace();
  handle.node = node;
  handle.opener = client;
  handle.writable = (fi->flags & O_ACCMODE) != O_RDONLY;
  fi->fh = static_cast<uint64_t>(id);
  fi->direct_io = 1;
  if (is_events(node)) ++event_opens_;
  if (LockNode* lock = nodes_.lock(node)) {
    Lockspace& space = *table_.find_lockspace(lock->space);
    handle.may_lock = handle.writable || may_write(req, space, table_.find(space, lock->name));
    handle.owner = table_.open(space, lock->name, client, fi->fh);
    lock->handles.push_back(id);
  }
  return {id, &handle};
}

void LockFs::drop_handle(HandleId id) {
  Handle& handle = *handles_.find(id);
  if (LockNode* node = nodes_.lock(handle.node)) std::erase(node->handles, id);
  const Owner* own = table_.find(handle.owner);
  if (own != nullptr) {
    if (handle.poll != nullptr) std::erase(pollers_[own->lock], id);
    if (handle.poll != nullptr && pollers_[own->lock].empty()) pollers_.erase(own->lock);
    for (const uint64_t lock_owner : handle.posix) {
      const auto posix = posix_.find({own->lock, lock_owner});
      if (posix == posix_.end() || posix->second.through != id) continue;
      const OwnerId ended = posix->second.owner;
      posix_.erase(posix);
      end_owner(ended);
    }
    end_owner(handle.owner);
  }
  if (is_events(handle.node)) {
    --event_opens_;
    std::erase(event_pollers_, id);
  }
  if (handle.poll != nullptr) fuse_pollhandle_destroy(handle.poll);
  free_text(handle);
  table_.quota.give(handle.opener.uid, Quota::kOpens);
  handles_.erase(id);
}

void LockFs::end() {
  log_limit_.tell();
  table_.end_queries();
  for (const auto& [owner, waiting] : std::exchange(parked_, {})) {
    for (const Parked& parked : waiting) fuse_reply_err(parked.req, ENOTCONN);
  }
  for (const EventReader& reader : std::exchange(event_readers_, {})) {
    fuse_reply_err(reader.req, ENOTCONN);
  }
  handles_.for_each([](HandleId /*id*/, Handle& handle) {
    if (handle.poll != nullptr) fuse_pollhandle_destroy(std::exchange(handle.poll, nullptr));
  });
}

void LockFs::create(fuse_req_t req, NodeId parent, const char* name, fuse_file_info* fi) {
  Lockspace* space = NodeTable::kind(parent) == NodeKind::kLockspace
                         ? table_.find_lockspace(NodeTable::space(parent))
                         : nullptr;
  if (space == nullptr) return void(fuse_reply_err(req, EPERM));
  const NodeId node = nodes_.add_lock(space->id, lock_name(name));
  const auto [id, handle] = add_handle(req, node, fi);
  if (handle == nullptr) {
    nodes_.forget(node);
    return void(fuse_reply_err(req, ENOLCK));
  }
  Parked parked{req, Parked::Kind::kCreate, id, {}, client_of(req), 0, 0};
  handle->no_flush = (fi->flags & O_EXCL) != 0;
  if (!handle->no_flush) return finish(handle->owner, std::move(parked), LockErrc::kOk);
  parked.request.want = {Mode::kEX, 0};
  parked.request.now = true;
  submit(handle->owner, std::move(parked));
}

void LockFs::open(fuse_req_t req, NodeId node, fuse_file_info* fi) {
  const LockNode* lock = nodes_.lock(node);
  const bool is_lock = NodeTable::kind(node) == NodeKind::kLock;
  if (is_lock && (lock == nullptr || table_.find_lockspace(lock->space) == nullptr)) {
    return void(fuse_reply_err(req, ESTALE));
  }
  const auto [id, handle] = add_handle(req, node, fi);
  if (handle == nullptr) return void(fuse_reply_err(req, ENOLCK));
  if (fuse_reply_open(req, fi) != 0) drop_handle(id);
}

// Any close by a process ends its POSIX lock of the file; the other kinds wait for RELEASE.
void LockFs::flush(fuse_req_t req, const fuse_file_info* fi) {
  Handle* handle = handles_.find(HandleId{fi->fh});
  const Owner* own = handle != nullptr ? table_.find(handle->owner) : nullptr;
  const auto posix = own != nullptr ? posix_.find({own->lock, fi->lock_owner}) : posix_.end();
  if (posix != posix_.end()) {
    const OwnerId owner = posix->second.owner;
    // Another thread may wait for it just now: it goes on waiting, and RELEASE ends the owner.
    if (parked_.contains(owner)) {
      table_.release(owner);
    } else {
      posix_.erase(posix);
      end_owner(owner);
    }
  }
  // It may have been taken through this one, and have ended by the close of another.
  if (own != nullptr && !posix_.contains({own->lock, fi->lock_owner})) {
    std::erase(handle->posix, fi->lock_owner);
  }
  fuse_reply_err(req, 0);
}

void LockFs::release(fuse_req_t req, const fuse_file_info* fi) {
  if (handles_.find(HandleId{fi->fh}) != nullptr) drop_handle(HandleId{fi->fh});
  fuse_reply_err(req, 0);
}

}  // namespace lockfs
