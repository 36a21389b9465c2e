// SPDX-License-Identifier: MIT
// Reading and polling: pictures of a lock, and the texts of control files.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "fs/lock_fs.h"

namespace lockfs {
namespace {

constexpr auto kCaptureAfter = std::chrono::milliseconds(1);

// How often we look at other nodes' claims for those who poll.
constexpr auto kPollLook = std::chrono::milliseconds(100);

size_t digest_of(const RemoteLock& lock) {
  std::string all;
  for (const RemoteClaim& claim : lock.claims) {
    all += fmt::format("{} {} {} {} {} {};", mode_name(claim.mode), claim.waiting, claim.token,
                       claim.who.pid, claim.who.host, claim.who.note);
  }
  return std::hash<std::string>()(all);
}

}  // namespace

void LockFs::make_text(HandleId id, fuse_req_t req, const TextDone& done) {
  Handle& handle = *handles_.find(id);
  switch (NodeTable::kind(handle.node)) {
    case NodeKind::kInfoFile: return info_text(handle.node, req, done);
    case NodeKind::kControl: return done(std::exchange(handle.answer, {}));
    default: break;
  }
  const LockNode* node = nodes_.lock(handle.node);
  const Owner* own = own_of(handle);
  if (node == nullptr || own == nullptr) return done({});
  handle.seen = own->lock->changes;
  table_.look(*own->lock->space, node->name, [=, this](LockErrc result, const RemoteLock& remote) {
    Handle* reading = handles_.find(id);
    const Owner* self = reading != nullptr ? own_of(*reading) : nullptr;
    if (self == nullptr) return done({});
    reading->elsewhere = digest_of(remote);
    done(painter_.lock(*self->lock, self, {result, remote}, reading->error, reading->lost_why));
  });
}

void LockFs::read(fuse_req_t req, size_t size, off_t offset, const fuse_file_info* fi) {
  const HandleId id{fi->fh};
  const Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  const auto at = static_cast<uint64_t>(offset);
  if (is_events(handle->node)) {
    return read_events({req, id, size, at, (fi->flags & O_NONBLOCK) != 0});
  }
  const Cursor& cursor = handle->cursor;
  if (!cursor.fresh && offset != 0 && at >= cursor.base) return reply_text(req, id, size, at);
  make_text(id, req, [=, this](const std::string& text) {
    Handle* read = handles_.find(id);
    if (read != nullptr && !keep_text(*read, text, at)) {
      return void(fuse_reply_err(req, ENOLCK));
    }
    reply_text(req, id, size, at);
  });
}

// False where its opener has too much of it.
bool LockFs::keep_text(Handle& handle, const std::string& text, uint64_t at) {
  free_text(handle);
  handle.cursor = {};
  if (!take_bytes(handle.opener.uid, text.size())) return false;
  handle.cursor = {text, text.size(), at, false};
  return true;
}

void LockFs::free_text(Handle& handle) {
  give_bytes(handle.opener.uid, handle.cursor.text.size());
  handle.cursor.text.clear();
  handle.cursor.text.shrink_to_fit();
}

void LockFs::reply_text(fuse_req_t req, HandleId id, size_t size, uint64_t at) {
  Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  Cursor& cursor = handle->cursor;
  const size_t start = std::min(static_cast<size_t>(at - cursor.base), cursor.text.size());
  const size_t count = std::min(size, cursor.text.size() - start);
  fuse_reply_buf(req, cursor.text.data() + start, count);
  if (count != 0) return;
  cursor.fresh = true;
  free_text(*handle);
}

void LockFs::poll(fuse_req_t req, const fuse_file_info* fi, fuse_pollhandle* ph) {
  const HandleId id{fi->fh};
  Handle* handle = handles_.find(id);
  const Owner* own = handle != nullptr ? own_of(*handle) : nullptr;
  if (handle != nullptr && is_events(handle->node)) return poll_events(req, id, ph);
  if (own == nullptr) {  // Control files: always ready.
    if (ph != nullptr) fuse_pollhandle_destroy(ph);
    return void(fuse_reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM));
  }
  if (ph != nullptr) {
    if (handle->poll != nullptr) {
      fuse_pollhandle_destroy(handle->poll);
    } else {
      pollers_[own->lock].push_back(id);
    }
    handle->poll = ph;
    table_.watch(*own->lock);
    if (own->lock->space->backend->traits().other_nodes) look_for_pollers();
  }
  unsigned events = POLLOUT | POLLWRNORM;
  if (handle->seen != own->lock->changes) events |= POLLIN | POLLRDNORM;
  if (own->held.above_null() && own->lock->is_wanted()) events |= POLLPRI;
  if (own->lost) events |= POLLERR | POLLHUP;
  fuse_reply_poll(req, events);
}

// What changes on other nodes is announced to nobody: while somebody polls we look.
void LockFs::look_for_pollers() {
  if (poll_timer_ != TimerId::kNone) return;
  poll_timer_ = loop_.timers.schedule(loop_.timers.now() + kPollLook, [this] {
    poll_timer_ = TimerId::kNone;
    std::vector<HandleId> polling;
    for (const auto& [lock, handles] : pollers_) {
      if (!lock->space->backend->traits().other_nodes) continue;
      polling.insert(polling.end(), handles.begin(), handles.end());
    }
    for (const HandleId id : polling) {
      const Handle* handle = handles_.find(id);
      const Owner* own = handle != nullptr ? own_of(*handle) : nullptr;
      if (own == nullptr) continue;
      table_.look(*own->lock->space, own->lock->name(),
                  [this, id](LockErrc result, const RemoteLock& remote) {
                    Handle* seen = handles_.find(id);
                    if (seen == nullptr || result != LockErrc::kOk) return;
                    const auto before = std::exchange(seen->elsewhere, digest_of(remote));
                    if (before ? before == seen->elsewhere : remote.held()) return;
                    seen->seen.reset();  // Its picture is another one now.
                    notify(*seen);
                  });
    }
    if (!polling.empty()) look_for_pollers();
  });
}

void LockFs::changed(const Lock& lock) {
  const auto watchers = pollers_.extract(&lock);
  if (watchers.empty()) return;
  for (const HandleId id : watchers.mapped()) {
    Handle* handle = handles_.find(id);
    if (handle != nullptr) notify(*handle);
  }
}

// Wakes those in poll(2); they ask again, with a new handle.
void LockFs::notify(Handle& handle) {
  fuse_pollhandle* poll = std::exchange(handle.poll, nullptr);
  if (poll == nullptr) return;
  fuse_lowlevel_notify_poll(poll);
  fuse_pollhandle_destroy(poll);
}

// A holder's process is looked up once it has held for a while, so that it is known when it is
// gone; one that holds for less costs nothing.
void LockFs::note_holder(OwnerId owner) {
  new_holders_.push_back(owner);
  if (capture_timer_ != TimerId::kNone) return;
  capture_timer_ = loop_.timers.schedule(loop_.timers.now() + kCaptureAfter, [this] {
    capture_timer_ = TimerId::kNone;
    capture_processes();
  });
}

void LockFs::capture_processes() {
  for (const OwnerId id : std::exchange(new_holders_, {})) {
    const Owner* owner = table_.find(id);
    if (owner == nullptr || !owner->holding) continue;
    if (owner->since + kCaptureAfter > loop_.timers.now()) {
      note_holder(id);
    } else {
      painter_.process(*owner, owner->client);
    }
  }
}

}  // namespace lockfs
