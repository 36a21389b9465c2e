// SPDX-License-Identifier: MIT
#pragma once
#include <sys/resource.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/mount.h"

namespace lockfs::test {

/// `lockfs serve elock://` at a free port of the loopback. Gone when this ends.
class ElockServer {
 public:
  /// `options` as in the URL, behind its '?'.
  /// It has at most `descriptors`, and may raise that to `most` of them; 0: as the test itself.
  explicit ElockServer(std::string options = "", rlim_t descriptors = 0, rlim_t most = 0);
  ElockServer(const ElockServer&) = delete;
  ElockServer& operator=(const ElockServer&) = delete;

  int port() const { return port_; }
  pid_t pid() const { return process_->pid(); }
  void signal(int number) const { process_->signal(number); }
  void kill();
  void start();

 private:
  std::string options_;
  rlimit descriptors_{};
  int port_ = 0;
  std::unique_ptr<Child> process_;
};

/// A client by hand: lines out, lines in.
class ElockClient {
 public:
  explicit ElockClient(int port);
  ~ElockClient();
  ElockClient(const ElockClient&) = delete;
  ElockClient& operator=(const ElockClient&) = delete;

  void say(const std::string& text) const;
  /// The next line without its end; "" when there is none within ten seconds, or no more.
  std::string hear();
  /// One request, one line.
  std::string ask(const std::string& line) {
    say(line + "\n");
    return hear();
  }
  /// Whether the server has closed it.
  bool is_closed();

 private:
  int fd_ = -1;
  std::string input_;
};

}  // namespace lockfs::test
