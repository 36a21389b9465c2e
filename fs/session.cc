// SPDX-License-Identifier: MIT
#include "fs/session.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "backends/registry.h"
#include "fs/mount_point.h"

namespace lockfs {
namespace {

// A close_range() of more descriptors than this, followed at once by an open with O_EXCL, can see
// the last of its own locks still held: RELEASE is a background request (facts on FUSE, Closing).
constexpr unsigned kMaxBackground = 65535;
constexpr unsigned kMaxWrite = 128 * 1024;

// The kernel wants room for a request of max_write and its header.
constexpr size_t kBufferSize = 1024 * 1024 + 4096;

int64_t number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = -1;
  file >> value;
  return value;
}

// By which the kernel calls the connection of the mount there.
std::string connection_number(const std::string& mountpoint) {
  const auto mount = mount_at(mountpoint);
  return mount ? mount->device.substr(mount->device.find(':') + 1) : "";
}

// libfuse takes commas and backslashes behind a backslash.
std::string comma_safe(const std::string& word) {
  std::string out;
  for (const char c : word) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ",") + word;
  return out;
}

// With the options read; not mounted.
tl::expected<fuse_session*, std::string> new_session(const Options& options, Session* userdata) {
  std::string list =
      "fsname=" + comma_safe(shown_url(options.source)) + ",subtype=lockfs,default_permissions";
  if (getuid() == 0) list += ",allow_other";
  if (!options.mount_options.empty()) list += "," + joined(options.mount_options);
  std::string name = "lockfs";
  std::string dash_o = "-o";
  std::vector<char*> argv = {name.data(), dash_o.data(), list.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, argv.data());
  fuse_session* session =
      fuse_session_new(&args, &operations(), sizeof(fuse_lowlevel_ops), userdata);
  fuse_opt_free_args(&args);
  if (session != nullptr) return session;
  return tl::make_unexpected("an option was refused, of -o " +
                             list.substr(list.find("default_permissions")) +
                             ": lockfs --help lists ours, mount.fuse(8) the others");
}

}  // namespace

std::optional<std::string> refused_mount_options(const Options& options) {
  const auto made = new_session(options, nullptr);
  if (!made) return made.error();
  fuse_session_destroy(*made);
  return std::nullopt;
}

Session::Session(EventLoop& loop, LockFs& fs, const Options& options)
    : loop_(loop), options_(options), fs_(fs), buffer_(kBufferSize) {}

Session::~Session() {
  if (mounted_) {
    loop_.unwatch(fuse_session_fd(session_));
    fuse_session_exit(session_);  // Replies have nobody to go to, and libfuse is not to complain.
    fuse_session_unmount(session_);
    fs_.end();
  }
  if (session_ != nullptr) fuse_session_destroy(session_);
}

std::optional<std::string> Session::read_options() {
  const auto made = new_session(options_, this);
  if (!made) return made.error();
  session_ = *made;
  return std::nullopt;
}

std::optional<std::string> Session::mount() {
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    return "cannot mount at " + options_.mountpoint +
           " (is it an empty directory, is /dev/fuse there, may you mount?)";
  }
  mounted_ = true;
  const int fd = fuse_session_fd(session_);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  loop_.watch(fd, [this] { return take_request(); });
  loop_.poll_first(fd, options_.poll);
  return std::nullopt;
}

void Session::init(fuse_conn_info* connection) {
  connection->max_write = std::min(connection->max_write, kMaxWrite);
  connection->max_background = kMaxBackground;
  connection->congestion_threshold = kMaxBackground;
  constexpr unsigned kNeeded = FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS;
  connection->want |= (kNeeded | FUSE_CAP_ATOMIC_O_TRUNC) & connection->capable;
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_DIO);
  std::optional<std::string> refusal;
  if ((connection->want & kNeeded) != kNeeded) {
    // The kernel would lock locally without a word, and nobody else would know.
    refusal = "this kernel does not pass flock and fcntl locks to FUSE filesystems";
    loop_.stop();
  }
  // After this request's reply, which tells the kernel what was agreed.
  loop_.post([this, refusal] {
    auto why = refusal;
    if (!why && fuse_session_exited(session_) != 0) {  // libfuse did not like what follows.
      why = "libfuse and the kernel did not agree on -o " + joined(options_.mount_options);
      loop_.stop();
    }
    if (!why) check_kernel();
    if (ready_) ready_(why);
  });
}

// Settings of this host that would break waits or releases: said at once, not found at night.
void Session::check_kernel() {
  if (number_in("/proc/sys/fs/fuse/default_request_timeout") > 0) {
    spdlog::warn(
        "sysctl fs.fuse.default_request_timeout is set: the kernel will abort the whole "
        "mount when a lock is waited for longer; set it to 0");
  }
  const std::string granted =
      "/sys/fs/fuse/connections/" + connection_number(options_.mountpoint) + "/max_background";
  const int64_t background = number_in(granted);
  if (background > 0 && background < kMaxBackground) {
    spdlog::warn(
        "the kernel granted max_background={}: a process that closes more locks at once "
        "and reopens them with O_EXCL may see its own as still held",
        background);
  }
}

bool Session::take_request() {
  const ssize_t n = read(fuse_session_fd(session_), buffer_.data(), buffer_.size());
  if (n < 0) {
    if (errno == EINTR || errno == ENOENT) return true;  // A request that was taken back.
    if (errno == ENODEV) loop_.stop();                   // Unmounted.
    if (errno != EAGAIN && errno != ENODEV) {
      spdlog::error("reading /dev/fuse: {}", std::strerror(errno));
      loop_.stop();
    }
    return false;
  }
  // It may have been stopped: what ended meanwhile, ends before this.
  loop_.timers.advance(Clock::now());
  fuse_buf request{};
  request.size = static_cast<size_t>(n);
  request.mem = buffer_.data();
  fuse_session_process_buf(session_, &request);
  fs_.handle_interrupts();
  return true;
}

}  // namespace lockfs
