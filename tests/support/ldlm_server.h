// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// A real LDLM server of a test's own, at a free port of the loopback. Gone when this ends.
class LdlmServer {
 public:
  using Words = std::vector<std::string>;
  /// `options` are the server's, as {"--password", "x"}.
  explicit LdlmServer(Words options = {});
  ~LdlmServer();
  LdlmServer(const LdlmServer&) = delete;
  LdlmServer& operator=(const LdlmServer&) = delete;

  /// Whether this machine has one, as ldlm-get got it; where LOCKFS_TEST_REQUIRE names ldlm, it
  /// must.
  static bool is_here();
  /// Why it has none.
  static std::string missing();

  int port() const { return port_; }
  pid_t pid() const { return process_->pid(); }
  void signal(int number) const { process_->signal(number); }
  /// Kills it, and starts it again; it remembers nothing.
  void kill();
  void start();

 private:
  std::string directory_ = "/tmp/lockfs-ldlm-XXXXXX";
  int port_ = 0;
  Words options_;
  std::unique_ptr<Child> process_;
};

/// LDLM's own client, the one for Python.
class LdlmPython {
 public:
  static bool is_here();
  static std::string missing();
  /// Runs a script that finds a `client` of the server at `port` and its arguments in `args`; what
  /// it exits with.
  static int run(int port, const std::string& script, const std::vector<std::string>& args);
};

}  // namespace lockfs::test
