// SPDX-License-Identifier: MIT
#include "fs/pidfd.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace lockfs {

Pidfd::~Pidfd() { close(fd_); }

bool Pidfd::signal(int number) const {
  return syscall(SYS_pidfd_send_signal, fd_, number, nullptr, 0) == 0;
}

std::shared_ptr<const Pidfd> Pidfds::of(pid_t process) {
  if (known_.size() >= purge_at_) {
    std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
    purge_at_ = 2 * known_.size() + 64;
  }
  const auto known = known_.find(process);
  auto kept = known != known_.end() ? known->second.lock() : nullptr;
  if (kept != nullptr && kept->signal(0)) return kept;  // Else its number may be another's now.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (fd < 0) return nullptr;
  auto made = std::make_shared<const Pidfd>(fd, process);
  known_[process] = made;
  return made;
}

}  // namespace lockfs
