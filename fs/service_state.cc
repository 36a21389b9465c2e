// SPDX-License-Identifier: MIT
#include "fs/service_state.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace lockfs {

// Not by libsystemd: its libraries would cost each start, of whomever, half as much time again.
void tell_systemd(const std::string& state) {
  const char* place = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  const size_t length = place != nullptr ? std::strlen(place) : 0;
  if (length < 2 || length >= sizeof address.sun_path) return;
  if (place[0] != '/' && place[0] != '@') return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, place, length);
  if (place[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) {
    [[maybe_unused]] const ssize_t told = send(fd, state.data(), state.size(), MSG_NOSIGNAL);
  }
  close(fd);
}

void tell_systemd_of_reload() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  tell_systemd("RELOADING=1\nMONOTONIC_USEC=" +
               std::to_string(now.tv_sec * 1000000 + now.tv_nsec / 1000));
}

}  // namespace lockfs
