// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tests/support/mount.h"
#include "tests/support/networks.h"

namespace lockfs::test {

/// A real etcd of a test's own: one member or a cluster, in a directory of its own, at free ports
/// of the loopback. Gone when this ends.
class EtcdServer {
 public:
  using Words = std::vector<std::string>;
  /// `options` are etcd's, of each member, where ":PORT" is its own. With `networks` each member is
  /// on a host of its own.
  explicit EtcdServer(size_t members = 1, Words options = {}, const Networks* networks = nullptr);
  ~EtcdServer();
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  /// Whether this machine has one; where LOCKFS_TEST_REQUIRE names etcd, it must.
  static bool is_here();

  size_t size() const { return members_.size(); }
  int port(size_t member = 0) const { return members_.at(member).port; }
  const std::string& host(size_t member) const { return members_.at(member).host; }
  const std::string& directory() const { return directory_; }
  /// "HOST:PORT,..." of all members.
  std::string endpoints() const;
  void signal(size_t member, int number) const { members_.at(member).process->signal(number); }
  void signal(int number) const;
  /// Ends members at once; start() goes on with what they have on disk.
  void kill(size_t member);
  void kill();
  void start(size_t member);
  void start();
  /// Who leads the cluster; waits until somebody does.
  size_t leader() const;

  /// What etcdctl prints, all of it; `exit_code`, if asked for.
  std::string ctl(const std::string& arguments, int* exit_code = nullptr) const;

 private:
  struct Member {
    std::string host;
    int port = 0;
    int peer_port = 0;
    std::unique_ptr<Child> process;
  };
  void launch(size_t member);
  bool is_ready(size_t member) const;

  std::string directory_ = "/dev/shm/lockfs-etcd-XXXXXX";  ///< Where no disk is waited for.
  Words options_;
  const Networks* networks_;
  std::vector<Member> members_;
};

}  // namespace lockfs::test
