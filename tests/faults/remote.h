// SPDX-License-Identifier: MIT
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {

/// A server that mounts share their locks by, over a network that can be broken.
class Remote {
 public:
  virtual ~Remote() = default;
  /// Where it listens on the loopback.
  virtual int port() const = 0;
  /// The URL by which it is reached at another port.
  virtual std::string source(int port) const = 0;
  /// What a mount holds is free at the latest so long after it was heard of last, in seconds.
  virtual double lease() const = 0;
  virtual void signal(int number) = 0;
  /// Whether holders keep what they hold when the server has lost its data.
  virtual bool survives_restart() const = 0;
  /// Whether who says nothing for a lease has nothing, though its connection is there.
  virtual bool notices_silence() const = 0;
  /// Whether the server frees what a connection held as soon as that ends, whoever ended it.
  virtual bool frees_at_disconnect() const { return false; }
  /// Whether a mount sees who waits on another.
  virtual bool sees_others() const = 0;
  /// Ends the server at once, and starts it again; its data may be lost.
  virtual void kill() = 0;
  virtual void start() = 0;
};

/// Its mounts have a lease of so many seconds.
std::unique_ptr<Remote> make_remote(const std::string& name, int lease = 3);
/// All that this build and this machine have.
std::vector<std::string> remote_names();

/// Two mounts of one server, each with a network of its own.
class RemoteTest : public testing::TestWithParam<std::string> {
 protected:
  RemoteTest();
  ~RemoteTest() override;
  Remote& remote() { return *remote_; }
  Proxy& network(size_t i) { return *networks_.at(i); }
  Mount& node(size_t i) { return *nodes_.at(i); }
  std::string lock(size_t i, const std::string& name) { return node(i).lock(name); }
  /// A descriptor of the lock on that node, which holds nothing yet; closed at the end.
  int open_lock(size_t i, const std::string& name);
  int keep(int fd);
  /// open(O_CREAT | O_EXCL): 0 or its errno; the descriptor is closed at the end.
  int exclusive(size_t i, const std::string& name);

 private:
  std::unique_ptr<Remote> remote_;
  std::vector<std::unique_ptr<Proxy>> networks_;
  std::vector<std::unique_ptr<Mount>> nodes_;
  std::vector<int> descriptors_;
};

}  // namespace lockfs::test
