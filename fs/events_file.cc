// SPDX-License-Identifier: MIT
// `.lockfs/events`: a stream that is read like a file, and waits at its end.
#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "fs/lock_fs.h"

namespace lockfs {
namespace {

// The kernel gives out numbers of threads in turn, 32768 of them at least: so long after it was
// seen one is the same thread's, or nobody's.
constexpr auto kSameThread = std::chrono::milliseconds(100);

// Threads that are remembered for that long: more than that make room.
constexpr size_t kThreads = 256;

bool ends_a_hold(Happening::Kind kind) {
  return kind == Happening::Kind::kReleased || kind == Happening::Kind::kLost ||
         kind == Happening::Kind::kBroken;
}

// To the microsecond.
double seconds(Duration time) {
  return std::round(std::chrono::duration<double>(time).count() * 1e6) / 1e6;
}

}  // namespace

bool LockFs::is_events(NodeId node) {
  return NodeTable::kind(node) == NodeKind::kInfoFile &&
         info_files().at(node - NodeTable::kFirstInfoFile) == kEventsName;
}

// Who asked, while its thread can still be nobody else's.
ProcessInfo LockFs::requester(const Happening& happening) {
  const TimePoint now = loop_.timers.now();
  // Of a hold, the thread is that of the grant.
  const TimePoint seen =
      ends_a_hold(happening.kind) ? happening.when - happening.lasted : happening.when;
  if (happening.thread == 0 || now - seen >= kSameThread) return {};
  if (event_threads_.size() >= kThreads) event_threads_.clear();
  SeenThread& known = event_threads_[happening.thread];
  if (known.when == TimePoint() || now - known.when >= kSameThread) {
    known = {now, processes_.describe(happening.thread)};
  }
  return known.info;
}

// What is known of the request, and how long it took.
void LockFs::add_request(const Happening& happening, nlohmann::ordered_json& out) {
  const ProcessInfo info = requester(happening);
  const pid_t process = happening.process != 0 ? happening.process : info.process;
  out["lock"] = happening.lock;
  out["mode"] = share_name(happening.share);
  if (process != 0) {
    out["pid"] = process;
  } else {
    out["thread"] = happening.thread;
  }
  out["uid"] = happening.uid;
  if (!info.comm.empty()) out["comm"] = info.comm;
  if (!info.container.empty()) out["container"] = info.container;
  if (happening.token != 0) out["token"] = happening.token;
  if (ends_a_hold(happening.kind)) out["held"] = seconds(happening.lasted);
  if (happening.waited) out["waited"] = seconds(happening.lasted);
}

std::string LockFs::event_line(uint64_t number, const Happening& happening) {
  using Kind = Happening::Kind;
  nlohmann::ordered_json out = {{"time", painter_.wall(happening.when)},
                                {"seq", number},
                                {"event", happening_name(happening.kind)}};
  if (happening.kind == Kind::kStarted) {
    out["version"] = LOCKFS_VERSION;
  } else if (happening.lock.empty()) {
    const Lockspace* space = table_.find_lockspace(happening.lockspace);
    out["lockspace"] = happening.lockspace;
    if (space != nullptr) out["backend"] = space->backend->traits().name;
  } else {
    out["lockspace"] = happening.lockspace;
    add_request(happening, out);
  }
  if (!happening.why.empty()) out["why"] = happening.why;
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void LockFs::read_events(const EventReader& reader) {
  Handle* handle = handles_.find(reader.handle);
  if (handle == nullptr) return void(fuse_reply_err(reader.req, EBADF));
  events_.catch_up();
  const std::string text = events_.read(handle->stream, reader.offset, reader.size);
  if (!text.empty() || reader.size == 0) {
    return void(fuse_reply_buf(reader.req, text.data(), text.size()));
  }
  if (reader.nonblocking) return void(fuse_reply_err(reader.req, EAGAIN));
  event_readers_.push_back(reader);
  tell_interrupt_of(reader.req);
}

void LockFs::poll_events(fuse_req_t req, HandleId id, fuse_pollhandle* ph) {
  Handle& handle = *handles_.find(id);
  if (ph != nullptr) {
    if (handle.poll != nullptr) fuse_pollhandle_destroy(handle.poll);
    if (handle.poll == nullptr) event_pollers_.push_back(id);
    handle.poll = ph;
  }
  events_.catch_up();
  fuse_reply_poll(req, events_.has_more(handle.stream) ? POLLIN | POLLRDNORM : 0);
}

// Something happened: those who wait for it are told when the loop comes around, and all that has
// happened until then at once.
void LockFs::note_event() {
  const bool watched = !event_readers_.empty() || !event_pollers_.empty();
  if (!watched || std::exchange(events_due_, true)) return;
  loop_.timers.schedule(loop_.timers.now(), [this] {
    events_due_ = false;
    for (const EventReader& reader : std::exchange(event_readers_, {})) read_events(reader);
    for (const HandleId id : std::exchange(event_pollers_, {})) {
      if (Handle* handle = handles_.find(id)) notify(*handle);
    }
  });
}

bool LockFs::interrupt_reader(fuse_req_t req) {
  const auto reading = std::find_if(event_readers_.begin(), event_readers_.end(),
                                    [&](const EventReader& reader) { return reader.req == req; });
  if (reading == event_readers_.end()) return false;
  event_readers_.erase(reading);
  fuse_reply_err(req, EINTR);
  return true;
}

}  // namespace lockfs
