// SPDX-License-Identifier: MIT
#include "tests/support/networks.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "tests/support/mount.h"

namespace lockfs::test {
namespace {

void run(const std::string& command) {
  if (system(command.c_str()) != 0) throw std::runtime_error("cannot: " + command);
}

int current() {
  const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("no network namespaces");
  return fd;
}

int fresh() {
  if (unshare(CLONE_NEWNET) != 0) throw std::runtime_error("unshare: no network namespace");
  run("ip link set lo up");
  return current();
}

void go(int space) {
  if (setns(space, CLONE_NEWNET) != 0) throw std::runtime_error("setns");
}

}  // namespace

bool Networks::is_here() {
  const char* required = getenv("LOCKFS_TEST_REQUIRE");
  if (required != nullptr && std::strstr(required, "netns") != nullptr) return true;
  return Child([] {
           if (unshare(CLONE_NEWNET) != 0) return 1;
           return system(
                      "ip link add hub type bridge && ip link add port0 type veth peer name net") ==
                          0
                      ? 0
                      : 1;
         }).wait() == 0;
}

Networks::Networks(size_t hosts) : before_(current()) {
  for (size_t i = 0; i < hosts; ++i) hosts_.push_back(fresh());
  const int own = fresh();
  run("ip link add hub type bridge && ip link set hub up && ip address add 10.77.0.1/24 dev hub");
  for (size_t i = 0; i < hosts; ++i) {
    const std::string port = "port" + std::to_string(i);
    run("ip link add " + port + " type veth peer name net netns /proc/" + std::to_string(getpid()) +
        "/fd/" + std::to_string(hosts_.at(i)) + " && ip link set " + port + " up master hub");
    go(hosts_.at(i));
    run("ip link set net up && ip address add " + address(i) + "/24 dev net");
    go(own);
  }
  close(own);
}

Networks::~Networks() {
  go(before_);
  close(before_);
  for (const int host : hosts_) close(host);
}

void Networks::enter(size_t host) const { go(hosts_.at(host)); }

void Networks::part(size_t host, bool parted) const {
  run("ip link set port" + std::to_string(host) + (parted ? " down" : " up"));
}

}  // namespace lockfs::test
