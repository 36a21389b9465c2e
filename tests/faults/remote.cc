// SPDX-License-Identifier: MIT
#include "tests/faults/remote.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "tests/support/elock_server.h"
#ifdef LOCKFS_LDLM
#include "tests/support/ldlm_server.h"
#endif
#ifdef LOCKFS_ETCD
#include "tests/support/etcd_server.h"
#endif
#ifdef LOCKFS_REDIS
#include "tests/support/redis_server.h"
#endif

namespace lockfs::test {
namespace {

/// What is the same of all servers. `option` of the URL is the lease.
template <class Server>
class ServerRemote : public Remote {
 public:
  ServerRemote(std::string scheme, std::string option, int lease)
      : scheme_(std::move(scheme)), option_(std::move(option)), lease_(lease) {}
  int port() const override { return server_.port(); }
  std::string source(int port) const override {
    return scheme_ + "://127.0.0.1:" + std::to_string(port) + "?" + option_ + "=" +
           std::to_string(lease_) + "s";
  }
  double lease() const override { return lease_; }
  void signal(int number) override { server_.signal(number); }
  void kill() override { server_.kill(); }
  void start() override { server_.start(); }

 protected:
  Server server_;

 private:
  const std::string scheme_;
  const std::string option_;
  const int lease_;
};

#ifdef LOCKFS_REDIS
class RedisRemote final : public ServerRemote<RedisServer> {
 public:
  explicit RedisRemote(int lease) : ServerRemote("redis", "lease", lease) { server_.is_known(); }
  bool survives_restart() const override { return true; }
  bool notices_silence() const override { return true; }
  bool sees_others() const override { return true; }
};
#endif

#ifdef LOCKFS_ETCD
class EtcdRemote final : public ServerRemote<EtcdServer> {
 public:
  explicit EtcdRemote(int lease) : ServerRemote("etcd", "lease", lease) {}
  bool survives_restart() const override { return true; }
  bool notices_silence() const override { return true; }
  bool sees_others() const override { return true; }
};
#endif

class ElockRemote final : public ServerRemote<ElockServer> {
 public:
  explicit ElockRemote(int lease) : ServerRemote("elock", "timeout", lease) {}
  bool survives_restart() const override { return false; }
  bool notices_silence() const override { return false; }
  bool sees_others() const override { return false; }
};

#ifdef LOCKFS_LDLM
class LdlmRemote final : public ServerRemote<LdlmServer> {
 public:
  explicit LdlmRemote(int lease) : ServerRemote("ldlm", "lease", lease) {}
  bool survives_restart() const override { return false; }
  bool notices_silence() const override { return true; }
  bool frees_at_disconnect() const override { return true; }
  bool sees_others() const override { return false; }
};
#endif

}  // namespace

std::unique_ptr<Remote> make_remote(const std::string& name, int lease) {
#ifdef LOCKFS_REDIS
  if (name == "redis") return std::make_unique<RedisRemote>(lease);
#endif
#ifdef LOCKFS_ETCD
  if (name == "etcd") return std::make_unique<EtcdRemote>(lease);
#endif
#ifdef LOCKFS_LDLM
  if (name == "ldlm") return std::make_unique<LdlmRemote>(lease);
#endif
  if (name == "elock") return std::make_unique<ElockRemote>(lease);
  throw std::runtime_error("no server " + name);
}

std::vector<std::string> remote_names() {
  std::vector<std::string> names = {"elock"};
#ifdef LOCKFS_REDIS
  if (RedisServer::is_here()) names.emplace_back("redis");
#endif
#ifdef LOCKFS_ETCD
  if (EtcdServer::is_here()) names.emplace_back("etcd");
#endif
#ifdef LOCKFS_LDLM
  if (LdlmServer::is_here()) names.emplace_back("ldlm");
#endif
  return names;
}

RemoteTest::RemoteTest() : remote_(make_remote(GetParam())) {
  for (int i = 0; i < 2; ++i) {
    networks_.push_back(std::make_unique<Proxy>(remote_->port()));
    nodes_.push_back(std::make_unique<Mount>(std::vector<std::string>{},
                                             remote_->source(networks_.back()->port())));
  }
}

RemoteTest::~RemoteTest() {
  for (const int fd : descriptors_) close(fd);
  nodes_.clear();  // Before their networks.
}

int RemoteTest::keep(int fd) {
  if (fd < 0) throw std::runtime_error("cannot open a lock: errno " + std::to_string(errno));
  descriptors_.push_back(fd);
  return fd;
}

int RemoteTest::open_lock(size_t i, const std::string& name) {
  return keep(open(lock(i, name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
}

int RemoteTest::exclusive(size_t i, const std::string& name) {
  const int fd = open(lock(i, name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return errno;
  keep(fd);
  return 0;
}

}  // namespace lockfs::test
