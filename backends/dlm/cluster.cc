// SPDX-License-Identifier: MIT
#include "backends/dlm/cluster.h"

#include <corosync/corotypes.h>
#include <corosync/quorum.h>
#include <corosync/votequorum.h>
#include <linux/capability.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <utility>

#include "backends/dlm/libdlm.h"

namespace lockfs::dlm {
namespace {

bool may_administrate() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("CapEff:")) continue;
    uint64_t bits = 0;
    const size_t at = line.find_first_not_of(" \t", 7);
    std::from_chars(line.data() + at, line.data() + line.size(), bits, 16);
    return (bits >> CAP_SYS_ADMIN & 1) != 0;
  }
  return false;
}

bool kernel_has_dlm() {
  std::ifstream misc("/proc/misc");
  for (std::string line; std::getline(misc, line);) {
    if (line.ends_with(" dlm-control")) return true;
  }
  return false;
}

// A connection to corosync that notes in `ring` what it is told; 0 when there is none.
quorum_handle_t connect_quorum(Ring* ring) {
  quorum_callbacks_t callbacks{};
  callbacks.quorum_notify_fn = [](quorum_handle_t handle, uint32_t quorate, uint64_t sequence,
                                  uint32_t /*entries*/, uint32_t* /*list*/) {
    const void* context = nullptr;
    if (quorum_context_get(handle, &context) != CS_OK) return;
    *static_cast<Ring*>(const_cast<void*>(context)) = {true, quorate != 0, sequence};
  };
  quorum_handle_t handle = 0;
  uint32_t type = 0;
  if (quorum_initialize(&handle, &callbacks, &type) != CS_OK) return 0;
  if (quorum_context_set(handle, ring) == CS_OK) return handle;
  quorum_finalize(handle);
  return 0;
}

}  // namespace

std::optional<std::string> what_is_missing() {
  if (!kernel_has_dlm()) {
    return "the kernel has no DLM (no dlm-control in /proc/misc): modprobe dlm, as root";
  }
  if (!may_administrate()) {
    return "the kernel lets only CAP_SYS_ADMIN make lockspaces: start it as root";
  }
  if (access("/dev/misc/dlm-control", R_OK | W_OK) != 0) {
    return "there is no /dev/misc/dlm-control, which udev makes by the rules of libdlm3: "
           "udevadm trigger, or in a container give it /dev/misc";
  }
  RingSequence ring;
  if (!ring.ask()) return "corosync does not answer: systemctl start corosync, then dlm";
  if (!ring.quorate()) {
    return "the cluster has no quorum, so nobody may be granted a lock: see corosync-quorumtool -s";
  }
  if (ControldWatch().fd() < 0) return "dlm_controld is not running: systemctl start dlm";
  return std::nullopt;
}

RingSequence::~RingSequence() {
  if (handle_ != 0) quorum_finalize(handle_);
}

std::optional<uint64_t> RingSequence::ask() {
  if (handle_ == 0) handle_ = connect_quorum(&ring_);
  ring_.told = false;
  if (handle_ != 0 && quorum_trackstart(handle_, CS_TRACK_CURRENT) == CS_OK) {
    quorum_dispatch(handle_, CS_DISPATCH_ONE);
  }
  if (ring_.told) return ring_.sequence;
  if (handle_ != 0) quorum_finalize(std::exchange(handle_, 0));
  return std::nullopt;
}

bool fencing_is_off() {
  std::string config(DLMC_DUMP_SIZE, '\0');
  return dlmc_dump_config(config.data()) >= 0 &&
         config.find("enable_fencing=0") != std::string::npos;
}

bool halves_may_both_have_quorum(uint32_t node) {
  votequorum_handle_t handle = 0;
  votequorum_callbacks_t callbacks{};
  if (votequorum_initialize(&handle, &callbacks) != CS_OK) return true;
  votequorum_info info{};
  const bool told = votequorum_getinfo(handle, node, &info) == CS_OK;
  votequorum_finalize(handle);
  return !told || (info.flags & VOTEQUORUM_INFO_TWONODE) != 0;
}

QuorumWatch::QuorumWatch() : handle_(connect_quorum(&ring_)) {
  if (handle_ == 0) return;
  if (quorum_fd_get(handle_, &fd_) != CS_OK ||
      quorum_trackstart(handle_, CS_TRACK_CURRENT | CS_TRACK_CHANGES) != CS_OK) {
    quorum_finalize(handle_);
    fd_ = -1;
  }
}

QuorumWatch::~QuorumWatch() {
  if (fd_ >= 0) quorum_finalize(handle_);
}

bool QuorumWatch::take() { return quorum_dispatch(handle_, CS_DISPATCH_ALL) == CS_OK; }

ControldWatch::ControldWatch() : fd_(dlmc_fs_connect()) {}

ControldWatch::~ControldWatch() {
  if (fd_ >= 0) dlmc_fs_disconnect(fd_);
}

}  // namespace lockfs::dlm
