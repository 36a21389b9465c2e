// SPDX-License-Identifier: MIT
#include "tests/support/mount.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace lockfs::test {

std::string lockfs_binary() {
  const char* set = std::getenv("LOCKFS_BINARY");
  return set != nullptr ? set : LOCKFS_BINARY_BUILT;
}

Mount::Mount(std::vector<std::string> arguments, std::string source) {
  std::string pattern = "/tmp/lockfs-test-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = pattern;
  chmod(path_.c_str(), 0755);
  log_path_ = path_ + ".log";
  const std::string program = lockfs_binary();
  std::vector<std::string> words = {program, "-f"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  words.push_back(source);
  words.push_back(path_);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  daemon_ = fork();
  if (daemon_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // A test that is killed leaves no daemon.
    const int log = open(log_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    dup2(log, 2);
    // The leak sanitizer falls over gRPC's threads now and then ("Tracer caught signal 11").
    if (source.starts_with("etcd") || source.starts_with("ldlm")) {
      setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    }
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  const std::string version = path_ + "/.lockfs/version";
  const bool ready = eventually([&] {
    return access(version.c_str(), R_OK) == 0 || waitpid(daemon_, nullptr, WNOHANG) == daemon_;
  });
  if (!ready || access(version.c_str(), R_OK) != 0) {
    throw std::runtime_error("lockfs did not mount: " + log());
  }
}

Mount::~Mount() {
  umount2(path_.c_str(), MNT_DETACH);
  kill(daemon_, SIGTERM);
  if (!eventually([&] { return waitpid(daemon_, nullptr, WNOHANG) == daemon_; })) {
    kill(daemon_, SIGKILL);
    waitpid(daemon_, nullptr, 0);
  }
  // What a sanitizer found in the daemon is said in its log alone.
  if (const std::string text = log(); text.find("Sanitizer") != std::string::npos) {
    ADD_FAILURE() << text;
  }
  rmdir(path_.c_str());
  unlink(log_path_.c_str());
}

std::string Mount::lock(const std::string& name) const {
  return path_ + "/" + (name.find('/') == std::string::npos ? "default/" : "") + name;
}

std::string Mount::log() const { return slurp(log_path_); }

Child::Child(const std::function<int()>& body) : pid_(fork()) {
  if (pid_ == 0) _exit(body());
}

Child::~Child() {
  if (reaped_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Child::signal(int number) const { kill(pid_, number); }

int Child::wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool eventually(const std::function<bool()>& condition, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::string slurp(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

int write_command(int fd, const std::string& text) {
  return write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : errno;
}

std::string picture_value(const std::string& yaml, const std::string& key) {
  YAML::Node node = YAML::Load(yaml);
  std::stringstream parts(key);
  std::string part;
  while (std::getline(parts, part, '.')) {
    if (node.IsSequence()) {
      const size_t index = std::stoul(part);
      if (index >= node.size()) return "";
      node.reset(node[index]);
    } else {
      if (!node.IsMap() || !node[part]) return "";
      node.reset(node[part]);
    }
  }
  return node.IsScalar() ? node.as<std::string>() : "";
}

}  // namespace lockfs::test
