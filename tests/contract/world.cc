// SPDX-License-Identifier: MIT
#include "tests/contract/world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "tests/support/elock_server.h"
#ifdef LOCKFS_ETCD
#include "tests/support/etcd_server.h"
#endif
#ifdef LOCKFS_LDLM
#include "tests/support/ldlm_server.h"
#endif
#ifdef LOCKFS_REDIS
#include "tests/support/redis_server.h"
#endif

namespace lockfs::test {
namespace {

class MemoryWorld final : public World {
 public:
  std::string source() const override { return "memory:"; }
  bool separate_nodes() const override { return false; }
  bool has_slots() const override { return true; }
  bool fifo() const override { return true; }
};

class FileWorld final : public World {
 public:
  FileWorld() {
    if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  ~FileWorld() override {
    std::filesystem::remove_all(directory_);
    std::filesystem::remove_all(directory_ + ".old");
  }
  std::string source() const override { return "file:" + directory_; }
  bool fifo() const override { return false; }
  bool has_files() const override { return true; }
  bool delete_lock(const std::string& name) override {
    return unlink((directory_ + "/default/" + name).c_str()) == 0;
  }
  bool move_lock(const std::string& name) override {
    const std::string file = directory_ + "/default/" + name;
    return rename(file.c_str(), (file + ".old").c_str()) == 0;
  }
  bool move_store() override {
    return rename(directory_.c_str(), (directory_ + ".old").c_str()) == 0 &&
           mkdir(directory_.c_str(), 0700) == 0;
  }

 private:
  std::string directory_ = "/tmp/lockfs-world-XXXXXX";
};

class ShmWorld final : public World {
 public:
  ShmWorld() : name_("lockfs-world-" + std::to_string(getpid()) + "-" + std::to_string(++count_)) {}
  ~ShmWorld() override {
    unlink(path().c_str());
    unlink((path() + ".old").c_str());
  }
  std::string source() const override { return "shm:" + name_ + "?locks=1024"; }
  bool fifo() const override { return true; }
  bool has_files() const override { return true; }
  bool delete_lock(const std::string& /*name*/) override { return unlink(path().c_str()) == 0; }
  bool move_lock(const std::string& /*name*/) override { return move_store(); }
  bool move_store() override { return rename(path().c_str(), (path() + ".old").c_str()) == 0; }

 private:
  std::string path() const { return "/dev/shm/" + name_; }
  static inline int count_ = 0;
  std::string name_;
};

// The mounts of one node of a DLM cluster: to the DLM, two locks are two, whoever has them.
class DlmWorld final : public World {
 public:
  DlmWorld() : prefix_("w" + std::to_string(getpid()) + "_" + std::to_string(++count_) + "_") {}
  std::string source() const override { return "dlm:?prefix=" + prefix_; }
  bool fifo() const override { return true; }
  size_t max_name_bytes() const override { return 64; }
  size_t max_lockspace_bytes() const override { return 63 - prefix_.size(); }
  /// Whether this machine is a node of one.
  static bool is_here() { return slurp("/proc/misc").find(" dlm-control\n") != std::string::npos; }

 private:
  static inline int count_ = 0;
  std::string prefix_;
};

#ifdef LOCKFS_REDIS
// A Redis server of its own. It has been in use for a while: nobody has to be heard first.
class RedisWorld final : public World {
 public:
  RedisWorld() { server_.is_known(); }
  std::string source() const override { return "redis+unix://" + server_.socket() + "?lease=3s"; }
  bool fifo() const override { return true; }
  bool sees_at_once() const override { return false; }
  bool has_slots() const override { return true; }
  double takeover() const override { return 3 * 1.5; }

 private:
  RedisServer server_;
};
#endif

#ifdef LOCKFS_ETCD
class EtcdWorld final : public World {
 public:
  std::string source() const override { return "etcd://" + server_.endpoints() + "?lease=3s"; }
  bool fifo() const override { return true; }
  bool sees_at_once() const override { return false; }
  double takeover() const override { return 3 * 1.5; }

 private:
  EtcdServer server_;
};
#endif

#ifdef LOCKFS_LDLM
class LdlmWorld final : public World {
 public:
  std::string source() const override {
    return "ldlm://127.0.0.1:" + std::to_string(server_.port()) + "?lease=3s";
  }
  bool fifo() const override { return true; }
  bool shares_modes() const override { return false; }
  bool sees_others() const override { return false; }
  bool has_slots() const override { return true; }
  bool keeps_size() const override { return true; }
  double takeover() const override { return 3 * 1.5; }

 private:
  LdlmServer server_;
};
#endif

// lockfs's own server of elock's protocol.
class ElockWorld final : public World {
 public:
  std::string source() const override {
    return "elock://127.0.0.1:" + std::to_string(server_.port()) + "?timeout=3s";
  }
  bool fifo() const override { return false; }
  bool asks_once() const override { return false; }
  bool shares_modes() const override { return false; }
  bool sees_others() const override { return false; }
  double takeover() const override { return 3 * 1.5; }

 private:
  ElockServer server_;
};

}  // namespace

std::unique_ptr<World> make_world(const std::string& name) {
  if (name == "memory") return std::make_unique<MemoryWorld>();
  if (name == "file") return std::make_unique<FileWorld>();
  if (name == "shm") return std::make_unique<ShmWorld>();
  if (name == "dlm") return std::make_unique<DlmWorld>();
#ifdef LOCKFS_REDIS
  if (name == "redis") return std::make_unique<RedisWorld>();
#endif
  if (name == "elock") return std::make_unique<ElockWorld>();
#ifdef LOCKFS_LDLM
  if (name == "ldlm") return std::make_unique<LdlmWorld>();
#endif
#ifdef LOCKFS_ETCD
  if (name == "etcd") return std::make_unique<EtcdWorld>();
#endif
  throw std::runtime_error("no world " + name);
}

std::vector<std::string> world_names() {
  std::vector<std::string> names = {"memory", "file", "shm", "elock"};
  if (DlmWorld::is_here()) names.emplace_back("dlm");
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

ContractTest::ContractTest() : world_(make_world(GetParam())) {
  const size_t count = world_->separate_nodes() ? 2 : 1;
  for (size_t i = 0; i < count; ++i) {
    nodes_.push_back(std::make_unique<Mount>(std::vector<std::string>{}, world_->source()));
  }
}

ContractTest::~ContractTest() {
  for (const int fd : descriptors_) close(fd);
}

int ContractTest::open_lock(size_t i, const std::string& name) {
  const int fd = open(lock(i, name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) throw std::runtime_error("cannot open " + name);
  descriptors_.push_back(fd);
  return fd;
}

size_t ContractTest::add_node() {
  if (!world_->separate_nodes()) return 0;
  nodes_.push_back(std::make_unique<Mount>(std::vector<std::string>{}, world_->source()));
  return nodes_.size() - 1;
}

std::string ContractTest::shown(size_t i, const std::string& name, const std::string& key) {
  return picture_value(picture(i, name), key);
}

std::set<std::string> ContractTest::listed(size_t i, const std::string& lockspace) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(node(i).path() + "/" + lockspace)) {
    names.insert(entry.path().filename());
  }
  names.erase(".ctl");
  return names;
}

bool ContractTest::is_stopped(pid_t process) {
  return slurp("/proc/" + std::to_string(process) + "/status").find("\nState:\tT") !=
         std::string::npos;
}

bool ContractTest::eventually_waiting(size_t i, const std::string& name, size_t count) {
  const auto waiters = [&](size_t of) {
    return static_cast<size_t>(std::atoi(shown(of, name, "waiters_total").c_str()));
  };
  return eventually([&] {
    size_t seen = waiters(i);
    for (size_t of = 0; !world_->sees_others() && of < nodes_.size(); ++of) {
      if (of == i || is_stopped(node(of).daemon())) continue;
      const std::string holder = shown(of, name, "holders.0.pid");
      const bool holds = !holder.empty() && holder != "0" && holder != "null";
      if (!holds && waiters(of) != 0) ++seen;
    }
    return seen == count;
  });
}

void ContractTest::kill_node(size_t i) { kill(node(i).daemon(), SIGKILL); }

void ContractTest::restart_node(size_t i) {
  nodes_.at(i).reset();
  nodes_.at(i) = std::make_unique<Mount>(std::vector<std::string>{}, world_->source());
}

}  // namespace lockfs::test
