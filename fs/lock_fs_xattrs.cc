// SPDX-License-Identifier: MIT
// The extended attributes of a lock.
#include <fmt/format.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "fs/lock_fs.h"

namespace lockfs {
namespace {

constexpr std::array<std::string_view, 4> kXattrs = {"user.lockfs.lvb", "user.lockfs.mode",
                                                     "user.lockfs.token", "user.lockfs.holder"};

void reply_sized(fuse_req_t req, std::string_view value, size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, value.size());
  } else if (size < value.size()) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, value.data(), value.size());
  }
}

}  // namespace

// Which owner a request on this node speaks for: one that holds through a descriptor opened with
// the node; by path, one of the caller's own process. Null: none.
const Owner* LockFs::owner_of(const LockNode& node, const Lock* lock, const Client& client) {
  const Owner* any = nullptr;
  for (const HandleId id : node.handles) {
    const Handle* handle = handles_.find(id);
    const Owner* owner = handle != nullptr ? own_of(*handle) : nullptr;
    if (owner != nullptr && owner->holding) return owner;
    if (owner != nullptr) any = owner;
  }
  if (any != nullptr || lock == nullptr || !node.handles.empty()) return any;
  const pid_t process = processes_.process_of(client.pid);
  for (const Owner* o = lock->first; o != nullptr && process != 0; o = o->next) {
    if (o->client.pid == client.pid || o->process == process) return o;
  }
  return nullptr;
}

std::string LockFs::xattr_value(const LockNode& node, std::string_view name, const Client& client,
                                const RemoteLock& remote, int& error) {
  Lockspace* space = table_.find_lockspace(node.space);
  const Lock* lock = space != nullptr ? table_.find(*space, node.name) : nullptr;
  const Owner* own = owner_of(node, lock, client);
  const bool by_descriptor = !node.handles.empty();
  if (name == "user.lockfs.lvb") {
    if (space != nullptr && !space->backend->traits().value_block) error = EOPNOTSUPP;
    if (error == 0 && (own == nullptr || !own->holding)) error = EPERM;  // For holders.
    std::string value(32, '\0');
    if (error == 0 && lock->lvb_lost) error = ENODATA;
    if (lock != nullptr && lock->lvb) std::memcpy(value.data(), lock->lvb->data(), value.size());
    return value;
  }
  if (name == "user.lockfs.mode") {
    if (by_descriptor) return own != nullptr && own->holding ? share_name(own->held) : "none";
    Share strongest;
    for (const Owner* o = lock != nullptr ? lock->first : nullptr; o != nullptr; o = o->next) {
      if (!strongest.above_null() || o->held.mode > strongest.mode) strongest = o->held;
    }
    for (const RemoteClaim& claim : remote.claims) {
      if (!claim.waiting && claim.mode > strongest.mode) strongest = {claim.mode, 0};
    }
    return strongest.above_null() ? share_name(strongest) : "free";
  }
  if (name == "user.lockfs.token") {
    if (by_descriptor) return std::to_string(own != nullptr ? own->token : 0);
    uint64_t token = lock != nullptr ? lock->token : 0;
    for (const RemoteClaim& claim : remote.claims) token = std::max(token, claim.token);
    return std::to_string(token);
  }
  if (name == "user.lockfs.holder") {
    std::string out;
    size_t count = 0;
    for (const Owner* o = lock != nullptr ? lock->first : nullptr; o != nullptr; o = o->next) {
      if (!o->held.above_null() || ++count > Painter::kMaxListed) continue;
      const ProcessInfo& info = painter_.process(*o, o->client);
      out += fmt::format("{}mode={} pid={} uid={} comm={}", out.empty() ? "" : "\n",
                         share_name(o->held), info.process != 0 ? info.process : o->client.pid,
                         o->client.uid, info.comm);
    }
    for (const RemoteClaim& claim : remote.claims) {
      if (claim.waiting || ++count > Painter::kMaxListed) continue;
      out += fmt::format("{}mode={} pid={} uid={} comm={} host={}", out.empty() ? "" : "\n",
                         mode_name(claim.mode), claim.who.pid, claim.who.uid, claim.who.comm,
                         claim.who.host.empty() ? "elsewhere" : claim.who.host);
    }
    if (count > Painter::kMaxListed) out += fmt::format("\nmore={}", count - Painter::kMaxListed);
    return out;
  }
  error = ENODATA;
  return {};
}

void LockFs::getxattr(fuse_req_t req, NodeId node, const char* name, size_t size) {
  const LockNode* lock = nodes_.lock(node);
  Lockspace* space = lock != nullptr ? table_.find_lockspace(lock->space) : nullptr;
  if (NodeTable::kind(node) != NodeKind::kLock || space == nullptr) {
    return void(fuse_reply_err(req, ENODATA));
  }
  const auto tell = [=, this, wanted = std::string(name), client = client_of(req)](
                        LockErrc /*result*/, const RemoteLock& remote) {
    const LockNode* seen = nodes_.lock(node);
    int error = seen == nullptr ? ESTALE : 0;
    std::string value;
    if (seen != nullptr) value = xattr_value(*seen, wanted, client, remote, error);
    if (error != 0) return void(fuse_reply_err(req, error));
    reply_sized(req, value, size);
  };
  if (!lock->handles.empty()) return tell(LockErrc::kOk, {});  // Of one's own descriptor.
  table_.look(*space, lock->name, tell);
}

void LockFs::setxattr(fuse_req_t req, NodeId node, const char* name, std::string_view value) {
  const LockNode* lock_node = nodes_.lock(node);
  if (NodeTable::kind(node) != NodeKind::kLock || lock_node == nullptr ||
      std::strcmp(name, "user.lockfs.lvb") != 0) {
    return void(fuse_reply_err(req, ENOTSUP));
  }
  if (value.size() > 32) return void(fuse_reply_err(req, ERANGE));
  Lockspace* space = table_.find_lockspace(lock_node->space);
  if (space != nullptr && !space->backend->traits().value_block) {
    return void(fuse_reply_err(req, EOPNOTSUPP));  // Holders of other nodes would not see it.
  }
  Lock* lock = space != nullptr ? table_.find(*space, lock_node->name) : nullptr;
  const Owner* own = owner_of(*lock_node, lock, client_of(req));
  if (own != nullptr && own->lost) return void(fuse_reply_err(req, ESTALE));
  if (lock == nullptr || own == nullptr || own->held.is_slot() || !is_exclusive(own->held.mode)) {
    return void(fuse_reply_err(req, EPERM));  // For holders of PW and EX.
  }
  table_.write_lvb(*lock, value);
  fuse_reply_err(req, 0);
}

void LockFs::listxattr(fuse_req_t req, NodeId node, size_t size) {
  std::string names;
  if (NodeTable::kind(node) == NodeKind::kLock) {
    for (const std::string_view name : kXattrs) names.append(name).push_back('\0');
  }
  reply_sized(req, names, size);
}

}  // namespace lockfs
