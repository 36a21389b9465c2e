// SPDX-License-Identifier: MIT
#pragma once
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/faults/descriptors.h"
#include "tests/support/etcd_server.h"

namespace lockfs::test {

/// Seconds.
inline double since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

/// Mounts of an etcd of the test's own.
class Etcd : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!EtcdServer::is_here())
      GTEST_SKIP() << "no etcd and etcdctl here, or no gRPC for a sanitizer of threads";
  }
  static std::string source(const EtcdServer& server, const std::string& rest = "?lease=3s") {
    return "etcd://" + server.endpoints() + rest;
  }
  /// `etcdctl lock NAME COMMAND`.
  static std::unique_ptr<Child> foreign(const EtcdServer& server, const std::string& name,
                                        const std::string& command) {
    return std::make_unique<Child>([&, name, command] {
      int code = 0;
      server.ctl("lock " + name + " --ttl 5 -- sh -c '" + command + "' >/dev/null 2>&1", &code);
      return code;
    });
  }
  static std::string revision(const EtcdServer& server) {
    const std::string status = server.ctl("get x -w json");
    return std::to_string(std::atoll(status.c_str() + status.find("\"revision\":") + 11));
  }
  static bool is_lost(int fd) { return write_command(fd, "renew") == ESTALE; }
  /// Seconds until that works.
  testing::AssertionResult works(const Mount& mount, double seconds = 15) {
    const std::string name = "works" + std::to_string(++count_);
    if (eventually([&] { return exclusive(mount, name) == 0; }, seconds)) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << mount.log();
  }

 private:
  int count_ = 0;
};

}  // namespace lockfs::test
