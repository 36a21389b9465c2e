// SPDX-License-Identifier: MIT
// The path of a lock through the filesystem: a request of the kernel becomes a request to the
// table (ask), is answered at once or parked, and its answer becomes a reply (finish).
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>

#include "fs/lock_fs.h"

namespace lockfs {
namespace {

// libfuse calls this within its own locks, perhaps at once: only note it.
void on_interrupt(fuse_req_t req, void* fs) { static_cast<LockFs*>(fs)->interrupt(req); }

bool whole_file(const struct flock& lock) { return lock.l_start == 0 && lock.l_len == 0; }

}  // namespace

// Ends an owner; system calls that still wait for it (another process of the same POSIX owner, a
// description closed under its waiter) are told EINTR first.
void LockFs::end_owner(OwnerId owner) {
  const auto waiting = parked_.find(owner);
  if (waiting != parked_.end()) {
    const std::deque<Parked> all = std::move(waiting->second);
    parked_.erase(waiting);
    for (const Parked& parked : all) reply(parked, LockErrc::kInterrupted);
  }
  table_.close(owner);
}

// The table may answer a request before it returns (answered()); either way the answer is here.
std::optional<LockErrc> LockFs::ask(OwnerId owner, Request request, Client client) {
  early_.erase(owner);
  auto result = table_.request(owner, std::move(request), client);
  if (!result) {
    const auto early = early_.extract(owner);
    if (!early.empty()) result = early.mapped();
  }
  return result;
}

// Requests of one owner are asked one after the other: processes that share a description may
// wait on it at the same time.
void LockFs::submit(OwnerId owner, Parked parked) {
  const auto waiting = parked_.find(owner);
  if (waiting == parked_.end()) {
    const auto result = ask(owner, parked.request, parked.client);
    if (result) return finish(owner, std::move(parked), *result);
  } else if (parked.request.now) {
    // Those before it wait, and it would not; unless what it wants is held already.
    const Owner* own = table_.find(owner);
    const bool same = own->holding && own->held == parked.request.want;
    return finish(owner, std::move(parked), same ? LockErrc::kOk : LockErrc::kWouldBlock);
  }
  fuse_req_t req = parked.req;
  parked_[owner].push_back(std::move(parked));
  parked_requests_[req] = owner;
  tell_interrupt_of(req);
}

void LockFs::tell_interrupt_of(fuse_req_t req) { fuse_req_interrupt_func(req, on_interrupt, this); }

void LockFs::answered(OwnerId owner, LockErrc result) {
  const auto waiting = parked_.find(owner);
  if (waiting == parked_.end()) {
    early_[owner] = result;
    return;
  }
  Parked parked = std::move(waiting->second.front());
  waiting->second.pop_front();
  finish(owner, std::move(parked), result);
  while (start_next(owner)) {
  }
}

// Asks for the first of those that stand behind the answered one; false when it waits or there is
// none.
bool LockFs::start_next(OwnerId owner) {
  const auto waiting = parked_.find(owner);
  if (waiting == parked_.end()) return false;
  if (waiting->second.empty()) {
    parked_.erase(waiting);
    return false;
  }
  // Out of the way while it is asked, so that an answer before ask() returns is seen as early.
  std::deque<Parked> rest = std::move(waiting->second);
  parked_.erase(waiting);
  const auto result = ask(owner, rest.front().request, rest.front().client);
  if (!result) {
    parked_[owner] = std::move(rest);
    return false;
  }
  Parked parked = std::move(rest.front());
  rest.pop_front();
  parked_[owner] = std::move(rest);
  finish(owner, std::move(parked), *result);
  return true;
}

void LockFs::finish(OwnerId owner, Parked parked, LockErrc result) {
  Handle* handle = handles_.find(parked.handle);
  const Owner* own = table_.find(owner);
  if (result == LockErrc::kOk && handle != nullptr) {
    handle->error.clear();
    handle->onlost = parked.onlost;
    handle->onlost_to = parked.onlost_to;
    handle->onlost_uid = parked.client.uid;
    if (own->held.above_null()) note_holder(owner);
  } else if (handle != nullptr &&
             (parked.kind != Parked::Kind::kCreate || result == LockErrc::kLimit)) {
    handle->error = explain(result, *own, parked.request.want, parked.client);
    if (result == LockErrc::kLimit &&
        log_limit_.admits(parked.client.uid, "requests beyond a limit")) {
      spdlog::warn("{}; uid {} pid {}", handle->error, parked.client.uid, parked.client.pid);
    }
  }
  const NodeId node = handle != nullptr ? handle->node : 0;
  const bool delivered = reply(parked, result);
  if (parked.kind == Parked::Kind::kCreate && (result != LockErrc::kOk || !delivered)) {
    if (handle != nullptr) drop_handle(parked.handle);
    nodes_.forget(node);
  } else if (!delivered && result == LockErrc::kOk) {
    table_.undo(owner);
  }
}

bool LockFs::reply(const Parked& parked, LockErrc result) {
  parked_requests_.erase(parked.req);
  std::erase(interrupted_, parked.req);
  if (parked.kind != Parked::Kind::kCreate) {
    if (result != LockErrc::kOk) return fuse_reply_err(parked.req, to_errno(result)) == 0;
    if (parked.kind == Parked::Kind::kLock) return fuse_reply_err(parked.req, 0) == 0;
    return fuse_reply_write(parked.req, parked.size) == 0;
  }
  if (result != LockErrc::kOk) {
    const int error = result == LockErrc::kWouldBlock ? EEXIST : to_errno(result);
    return fuse_reply_err(parked.req, error) == 0;
  }
  const Handle& handle = *handles_.find(parked.handle);
  fuse_entry_param entry{};
  describe(handle.node, entry);
  fuse_file_info fi{};
  fi.fh = static_cast<uint64_t>(parked.handle);
  fi.direct_io = 1;
  fi.noflush = handle.no_flush ? 1 : 0;
  return fuse_reply_create(parked.req, &entry, &fi) == 0;
}

void LockFs::handle_interrupts() {
  while (!interrupted_.empty()) {
    fuse_req_t req = interrupted_.back();
    interrupted_.pop_back();
    const auto known = parked_requests_.find(req);
    if (known == parked_requests_.end()) {
      interrupt_reader(req);
      continue;
    }
    const OwnerId owner = known->second;
    std::deque<Parked>& queue = parked_.at(owner);
    if (queue.front().req == req) {
      table_.cancel(owner);  // answered(kInterrupted) replies.
      continue;
    }
    const auto it = std::find_if(queue.begin(), queue.end(),
                                 [&](const Parked& parked) { return parked.req == req; });
    const Parked parked = std::move(*it);
    queue.erase(it);
    reply(parked, LockErrc::kInterrupted);
  }
}

void LockFs::write(fuse_req_t req, std::string_view data, const fuse_file_info* fi) {
  const HandleId id{fi->fh};
  Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  handle->cursor.fresh = true;
  if (NodeTable::kind(handle->node) != NodeKind::kLock) return control_write(req, id, data);
  auto command = parse_command(data);
  if (!command) {
    handle->error = command.error();
    return void(fuse_reply_err(req, EINVAL));
  }
  run(req, *handle, id, std::move(*command), data.size(), (fi->flags & O_NONBLOCK) != 0);
}

void LockFs::run(fuse_req_t req, Handle& handle, HandleId id, Command command, size_t size,
                 bool nonblocking) {
  const OwnerId owner = own_of(handle)->id;  // What it holds by fcntl, a mode string converts.
  Parked parked{req,  Parked::Kind::kWrite, id, std::move(command.request), client_of(req),
                size, command.onlost};
  switch (command.verb) {
    case Command::Verb::kAcquire:
      if (!find_onlost(handle, parked)) return;
      parked.request.now |= nonblocking;
      return submit(owner, std::move(parked));
    case Command::Verb::kRelease:
      table_.release(owner);
      return finish(owner, std::move(parked), LockErrc::kOk);
    case Command::Verb::kRenew: {
      const LockErrc result = table_.renew(owner, command.ttl);
      if (result == LockErrc::kOk) {
        fuse_reply_write(req, size);
        return;
      }
      handle.error = result == LockErrc::kInvalid
                         ? "renew: there is nothing to renew: take a mode with ttl=DUR first"
                         : "renew: " + make_error_code(result).message();
      return void(fuse_reply_err(req, to_errno(result)));
    }
    case Command::Verb::kResume: {
      const LockErrc result = table_.resume(owner, command.key, parked.client);
      if (result == LockErrc::kOk) return finish(owner, std::move(parked), result);
      handle.error =
          result == LockErrc::kNotFound
              ? "resume: no lock of this name lingers under that key (any more): take it anew"
          : result == LockErrc::kNotYours
              ? "resume: another user left it lingering: only that user may resume it"
              : "resume: " + make_error_code(result).message();
      if (result == LockErrc::kNotYours &&
          log_limit_.admits(parked.client.uid, "resumes refused")) {
        const Lock& lock = *table_.find(owner)->lock;
        spdlog::warn("resume of {}/{} refused to uid {} pid {}: another user's", lock.space->name,
                     lock.name(), parked.client.uid, parked.client.pid);
      }
      return void(fuse_reply_err(req, to_errno(result)));
    }
  }
}

OwnerId LockFs::posix_owner(Handle& handle, HandleId id, uint64_t lock_owner, const Client& client,
                            bool make) {
  const Owner* own = table_.find(handle.owner);
  // What a description holds already, in whatever way it was taken, further calls convert.
  if (handle.no_flush || own->wait || (own->holding && own->held.above_null()) || own->lost) {
    return handle.owner;
  }
  const Lock* lock = own->lock;
  const auto known = posix_.find({lock, lock_owner});
  if (known == posix_.end() && !make) return OwnerId::kNone;
  if (std::find(handle.posix.begin(), handle.posix.end(), lock_owner) == handle.posix.end()) {
    handle.posix.push_back(lock_owner);
  }
  if (known != posix_.end()) {
    known->second.through = id;
    return known->second.owner;
  }
  const OwnerId owner = table_.open(*lock->space, lock->name(), client, static_cast<uint64_t>(id));
  posix_[{lock, lock_owner}] = {owner, id};
  return owner;
}

void LockFs::refuse_lock(fuse_req_t req, Handle& handle) {
  const Lock& lock = *table_.find(handle.owner)->lock;
  handle.error = fmt::format(
      "{}/{}: you may not write this lock or its lockspace, so you may not take it; they are uid "
      "{}'s",
      lock.space->name, lock.name(), lock.space->uid);
  const Client client = client_of(req);
  if (log_limit_.admits(client.uid, "locks refused")) {
    spdlog::warn("lock {}/{} refused to uid {} pid {}: it may not write the lockspace",
                 lock.space->name, lock.name(), client.uid, client.pid);
  }
  fuse_reply_err(req, EACCES);
}

// The description's one lock, whichever way it was taken.
OwnerId LockFs::flock_owner(const Handle& handle, uint64_t lock_owner, const Client& client) {
  if (handle.posix.empty()) return handle.owner;
  // An OFD lock of the same description has the same lock_owner: it is the same lock.
  const auto same = posix_.find({table_.find(handle.owner)->lock, lock_owner});
  const Owner* ofd = same != posix_.end() ? table_.find(same->second.owner) : nullptr;
  if (ofd != nullptr && (ofd->holding || ofd->wait)) return ofd->id;
  const Owner* own = own_of(handle);
  if (own->id == handle.owner) return handle.owner;
  // A POSIX lock is its process's: one that only shares the description waits for it.
  const pid_t holder = processes_.process_of(own->wait ? own->wait->client.pid : own->client.pid);
  return holder != 0 && holder == processes_.process_of(client.pid) ? own->id : handle.owner;
}

void LockFs::flock(fuse_req_t req, const fuse_file_info* fi, int op) {
  const HandleId id{fi->fh};
  Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  if (handle->owner == OwnerId::kNone) return void(fuse_reply_err(req, EOPNOTSUPP));  // No lock.
  const OwnerId owner = flock_owner(*handle, fi->lock_owner, client_of(req));
  if ((op & LOCK_UN) != 0) {
    table_.release(owner);
    return void(fuse_reply_err(req, 0));
  }
  if (!handle->may_lock) return refuse_lock(req, *handle);
  Parked parked{req, Parked::Kind::kLock, id, {}, client_of(req), 0, 0};
  parked.request.want.mode = (op & LOCK_EX) != 0 ? Mode::kEX : Mode::kPR;
  parked.request.now = (op & LOCK_NB) != 0;
  parked.request.drop_first = true;
  submit(owner, std::move(parked));
}

void LockFs::setlk(fuse_req_t req, const fuse_file_info* fi, const struct flock& lock, bool sleep) {
  const HandleId id{fi->fh};
  Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  if (handle->owner == OwnerId::kNone) return void(fuse_reply_err(req, EOPNOTSUPP));  // No lock.
  if (!whole_file(lock)) {
    handle->error =
        "lockfs locks whole files only: start 0, length 0; this is a byte range: take a lock "
        "of its own for it";
    return void(fuse_reply_err(req, EOPNOTSUPP));
  }
  const Client client = client_of(req);
  const bool unlock = lock.l_type == F_UNLCK;
  const OwnerId owner = posix_owner(*handle, id, fi->lock_owner, client, !unlock);
  if (unlock) {
    if (owner != OwnerId::kNone) table_.release(owner);
    return void(fuse_reply_err(req, 0));
  }
  if (!handle->may_lock) return refuse_lock(req, *handle);
  Parked parked{req, Parked::Kind::kLock, id, {}, client, 0, 0};
  parked.request.want.mode = lock.l_type == F_WRLCK ? Mode::kEX : Mode::kPR;
  parked.request.now = !sleep;
  submit(owner, std::move(parked));
}

void LockFs::getlk(fuse_req_t req, const fuse_file_info* fi, struct flock lock) {
  const HandleId id{fi->fh};
  Handle* handle = handles_.find(id);
  if (handle == nullptr) return void(fuse_reply_err(req, EBADF));
  if (handle->owner == OwnerId::kNone) return void(fuse_reply_err(req, EOPNOTSUPP));  // No lock.
  if (!whole_file(lock)) return void(fuse_reply_err(req, EOPNOTSUPP));
  const OwnerId self = posix_owner(*handle, id, fi->lock_owner, client_of(req), false);
  const Share want{lock.l_type == F_WRLCK ? Mode::kEX : Mode::kPR, 0};
  const Lock& record = *table_.find(handle->owner)->lock;
  lock.l_type = F_UNLCK;
  for (const Owner* o = record.first; o != nullptr; o = o->next) {
    if (o->id == self || o->id == handle->owner || compatible(want, o->held)) continue;
    const ProcessInfo& info = painter_.process(*o, o->client);
    lock.l_type = compatible(Mode::kPR, o->held.mode) && !o->held.is_slot() ? F_RDLCK : F_WRLCK;
    lock.l_pid = info.process != 0 ? info.process : o->client.pid;
    break;
  }
  lock.l_whence = SEEK_SET;
  if (lock.l_type != F_UNLCK) return void(fuse_reply_lock(req, &lock));
  table_.look(*record.space, record.name(),
              [req, want, lock](LockErrc /*result*/, const RemoteLock& remote) mutable {
                for (const RemoteClaim& claim : remote.claims) {
                  if (claim.waiting || compatible(want.mode, claim.mode)) continue;
                  lock.l_type = compatible(Mode::kPR, claim.mode) ? F_RDLCK : F_WRLCK;
                  lock.l_pid = claim.who.pid;  // On its own host.
                }
                fuse_reply_lock(req, &lock);
              });
}

}  // namespace lockfs
