// SPDX-License-Identifier: MIT
#include "fs/service_state.h"

#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <ctime>

namespace lockfs {

namespace {

using Notify = int (*)(int unset_environment, const char* state);

// Loaded by who is a service only: its libraries would cost each start half as much time again.
Notify load_notify() {
  void* library = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    spdlog::error("systemd cannot be told how the mount fares: {}", dlerror());
    return nullptr;
  }
  return reinterpret_cast<Notify>(dlsym(library, "sd_notify"));
}

}  // namespace

void tell_systemd(const std::string& state) {
  if (std::getenv("NOTIFY_SOCKET") == nullptr) return;
  static const Notify notify = load_notify();
  if (notify != nullptr) notify(0, state.c_str());
}

void tell_systemd_of_reload() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  tell_systemd("RELOADING=1\nMONOTONIC_USEC=" +
               std::to_string(now.tv_sec * 1000000 + now.tv_nsec / 1000));
}

}  // namespace lockfs
