// SPDX-License-Identifier: MIT
// Losses: who is told that its lock is gone, and how.
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>

#include "fs/lock_fs.h"

namespace lockfs {

// Finds whom onlost= is to signal, before anything is granted on the strength of it. False: the
// request is answered, with why there is nobody.
bool LockFs::find_onlost(Handle& handle, Parked& parked) {
  if (parked.onlost == 0) return true;
  const Client& client = parked.client;
  const pid_t process = processes_.process_of(client.pid);
  if (process != 0) parked.onlost_to = pidfds_.of(process);
  if (parked.onlost_to != nullptr) return true;
  // The caller waits for this answer, so it is there: only descriptors can be short.
  const bool unseen = client.pid == 0;
  handle.error = unseen ? "onlost: the mount cannot see your process, which is in another pid "
                          "namespace, so it cannot signal it: leave out onlost=, and poll(2) the "
                          "descriptor for POLLERR"
                        : "onlost: the mount has no descriptor left to watch your process by: "
                          "leave out onlost=, or give the mount more (LimitNOFILE, ulimit -n)";
  if (log_limit_.admits(client.uid, "onlost= refused")) {
    spdlog::warn("{}; uid {} pid {}", handle.error, client.uid, client.pid);
  }
  fuse_reply_err(parked.req, unseen ? EOPNOTSUPP : ENOLCK);
  return false;
}

void LockFs::lost(OwnerId owner, std::string_view why) {
  const Owner* own = table_.find(owner);
  if (own == nullptr) return;  // It lingered: nobody is there to be told.
  Handle* handle = handles_.find(HandleId{own->tag});
  if (log_limit_.admits(own->client.uid, "locks lost")) {
    spdlog::warn("lock {}/{} lost by uid {} pid {}: {}", own->lock->space->name, own->lock->name(),
                 own->client.uid, own->client.pid, why);
  }
  if (handle == nullptr) return;
  handle->lost_why = why;
  if (handle->onlost_to != nullptr) signal_holder(*handle);
}

void LockFs::signal_holder(const Handle& handle) {
  const pid_t process = handle.onlost_to->process();
  // kill(2)'s own rule, as if the holder had sent it: it may have become another user since.
  spare_.give();
  const bool allowed = processes_.may_signal(handle.onlost_uid, process);
  spare_.take();
  if (!allowed) {
    if (!log_limit_.admits(handle.onlost_uid, "onlost signals not sent")) return;
    spdlog::warn("onlost signal {} to pid {} not sent for uid {}: kill(2) would not allow it",
                 handle.onlost, process, handle.onlost_uid);
    return;
  }
  if (handle.onlost_to->signal(handle.onlost)) return;
  const int error = errno;
  if (!log_limit_.admits(handle.onlost_uid, "onlost signals not sent")) return;
  spdlog::info("onlost signal {} to pid {} not sent: {}", handle.onlost, process,
               std::strerror(error));
}

}  // namespace lockfs
