// SPDX-License-Identifier: MIT
#include "fs/service_state.h"

#ifdef LOCKFS_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include <ctime>

namespace lockfs {

void tell_systemd([[maybe_unused]] const std::string& state) {
#ifdef LOCKFS_SYSTEMD
  sd_notify(0, state.c_str());
#endif
}

void tell_systemd_of_reload() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  tell_systemd("RELOADING=1\nMONOTONIC_USEC=" +
               std::to_string(now.tv_sec * 1000000 + now.tv_nsec / 1000));
}

}  // namespace lockfs
