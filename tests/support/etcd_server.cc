// SPDX-License-Identifier: MIT
#include "tests/support/etcd_server.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

std::string at(const std::string& host, int port) { return host + ":" + std::to_string(port); }
std::string name_of(size_t member) { return "m" + std::to_string(member); }

}  // namespace

bool EtcdServer::is_here() {
#ifdef __SANITIZE_THREAD__
  return false;  // It sees nothing of how gRPC's threads wait for each other, and takes all for
                 // races.
#endif
  const char* required = getenv("LOCKFS_TEST_REQUIRE");
  if (required != nullptr && std::strstr(required, "etcd") != nullptr) return true;
  return access("/usr/bin/etcd", X_OK) == 0 && access("/usr/bin/etcdctl", X_OK) == 0;
}

EtcdServer::EtcdServer(size_t members, Words options, const Networks* networks)
    : options_(std::move(options)), networks_(networks) {
  if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  for (size_t i = 0; i < members; ++i) {
    const std::string host = networks == nullptr ? "127.0.0.1" : Networks::address(i);
    members_.push_back({host, free_port(), free_port(), nullptr});
  }
  start();
}

EtcdServer::~EtcdServer() {
  members_.clear();
  std::filesystem::remove_all(directory_);
}

std::string EtcdServer::endpoints() const {
  std::string out;
  for (const Member& member : members_)
    out += (out.empty() ? "" : ",") + at(member.host, member.port);
  return out;
}

void EtcdServer::signal(int number) const {
  for (size_t i = 0; i < size(); ++i) signal(i, number);
}

void EtcdServer::kill(size_t member) {
  members_.at(member).process->signal(SIGKILL);
  members_.at(member).process->wait();
}

void EtcdServer::kill() {
  for (size_t i = 0; i < size(); ++i) kill(i);
}

void EtcdServer::start(size_t member) {
  launch(member);
  if (!eventually([&] { return is_ready(member); }, 20)) {
    throw std::runtime_error("etcd: " + slurp(directory_ + "/" + name_of(member) + ".log"));
  }
}

void EtcdServer::start() {
  for (size_t i = 0; i < size(); ++i) launch(i);
  for (size_t i = 0; i < size(); ++i) {
    if (!eventually([&] { return is_ready(i); }, 20)) {
      throw std::runtime_error("etcd: " + slurp(directory_ + "/" + name_of(i) + ".log"));
    }
  }
}

// It elects a leader five times faster than by default.
void EtcdServer::launch(size_t i) {
  Member& member = members_.at(i);
  std::string cluster;
  for (size_t n = 0; n < size(); ++n) {
    cluster += (n == 0 ? "" : ",") + name_of(n) + "=http://" +
               at(members_.at(n).host, members_.at(n).peer_port);
  }
  Words words = {"etcd",
                 "--name",
                 name_of(i),
                 "--data-dir",
                 directory_ + "/" + name_of(i),
                 "--listen-client-urls",
                 "http://" + at(member.host, member.port),
                 "--advertise-client-urls",
                 "http://" + at(member.host, member.port),
                 "--listen-peer-urls",
                 "http://" + at(member.host, member.peer_port),
                 "--initial-advertise-peer-urls",
                 "http://" + at(member.host, member.peer_port),
                 "--initial-cluster",
                 cluster,
                 "--heartbeat-interval",
                 "20",
                 "--election-timeout",
                 "200",
                 "--logger",
                 "zap",
                 "--log-outputs",
                 directory_ + "/" + name_of(i) + ".log"};
  for (std::string option : options_) {  // PORT stands for the member's own.
    const size_t own = option.find(":PORT");
    if (own != std::string::npos) option.replace(own + 1, 4, std::to_string(member.port));
    words.push_back(option);
  }
  member.process = std::make_unique<Child>([&words, i, this] {
    if (networks_ != nullptr) networks_->enter(i);
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // A test that is killed leaves no server.
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 1);
    dup2(null, 2);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    return 127;
  });
}

// With authentication on it is a refusal that tells.
bool EtcdServer::is_ready(size_t member) const {
  const std::string command = "ETCDCTL_API=3 timeout 2 etcdctl --endpoints " +
                              at(host(member), port(member)) + " get --limit 1 ready 2>&1";
  std::array<char, 4096> text{};
  FILE* pipe = popen(command.c_str(), "re");
  const size_t count = fread(text.data(), 1, text.size() - 1, pipe);
  const int result = pclose(pipe);
  return result == 0 || std::string_view(text.data(), count).find("user name") != std::string::npos;
}

size_t EtcdServer::leader() const {
  size_t found = size();
  const auto looks = [&] {
    for (size_t i = 0; i < size(); ++i) {
      const std::string status =
          ctl("--endpoints " + at(host(i), port(i)) + " endpoint status 2>/dev/null");
      if (status.find(", true, ") != std::string::npos) found = i;
    }
    return found != size();
  };
  if (!eventually(looks, 20)) throw std::runtime_error("nobody leads the cluster");
  return found;
}

std::string EtcdServer::ctl(const std::string& arguments, int* exit_code) const {
  const std::string command =
      "ETCDCTL_API=3 timeout 20 etcdctl --endpoints " + endpoints() + " " + arguments;
  FILE* pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) throw std::runtime_error("popen");
  std::string out;
  std::array<char, 4096> text{};
  for (size_t n = 0; (n = fread(text.data(), 1, text.size(), pipe)) > 0;)
    out.append(text.data(), n);
  const int result = pclose(pipe);
  if (exit_code != nullptr) *exit_code = WEXITSTATUS(result);
  return out;
}

}  // namespace lockfs::test
