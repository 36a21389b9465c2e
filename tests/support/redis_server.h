// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// A real redis-server of a test's own, in a directory of its own: at a unix socket, and at a free
/// port of the loopback. Gone when this ends.
class RedisServer {
 public:
  using Words = std::vector<std::string>;
  /// `options` are redis-server's, as {"--requirepass", "x"}.
  /// It runs behind `before`, as {"env", "X=1"}.
  explicit RedisServer(Words options = {}, Words before = {});
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  /// Whether this machine has one; where LOCKFS_TEST_REQUIRE names redis, it must.
  static bool is_here();

  std::string socket() const { return directory_ + "/sock"; }
  int port() const { return port_; }
  const std::string& directory() const { return directory_; }
  pid_t pid() const { return process_->pid(); }
  void signal(int number) const { process_->signal(number); }
  /// Kills it, and starts it again with what it has on disk.
  void kill();
  void start();

  /// The answer to a command, as text; of an array, its elements by lines. Throws if there is none.
  std::string command(const Words& words) const;
  void set(const std::string& key, const std::string& value) const;
  /// Which run of the server this is.
  std::string run_id() const;
  /// So that mounts need not wait until all who might hold something are heard.
  void is_known(const std::string& prefix = "lockfs") const { set(prefix + ":run", run_id()); }

 private:
  std::string directory_ = "/tmp/lockfs-redis-XXXXXX";
  int port_ = 0;
  Words options_;
  Words before_;
  std::string password_;
  std::unique_ptr<Child> process_;
};

}  // namespace lockfs::test
