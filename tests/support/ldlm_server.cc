// SPDX-License-Identifier: MIT
#include "tests/support/ldlm_server.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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

// What ldlm-get says of one of the two.
struct Found {
  std::string path;     ///< Where it is; "": it is not.
  std::string missing;  ///< Why.
};

Found find(const std::string& what) {
  std::FILE* pipe = popen(("'" LDLM_GET "' where " + what + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  std::string text;
  std::array<char, 4096> buffer{};
  while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) {
    text.append(buffer.data(), n);
  }
  const bool found = pclose(pipe) == 0;
  while (text.ends_with('\n')) text.pop_back();
  return found ? Found{text, ""} : Found{"", text};
}
const Found& server() {
  static const Found found = find("server");
  return found;
}
const Found& client() {
  static const Found found = find("client");
  return found;
}

bool is_required() {
  const char* required = getenv("LOCKFS_TEST_REQUIRE");
  return required != nullptr && std::strstr(required, "ldlm") != nullptr;
}

void exec(std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
}

bool listens(int port) {
  const int fd = connect_to(port);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

}  // namespace

bool LdlmServer::is_here() {
#ifdef __SANITIZE_THREAD__
  return false;  // As of etcd: see there.
#endif
  return is_required() || !server().path.empty();
}
std::string LdlmServer::missing() { return "no LDLM server here: " + server().missing; }

LdlmServer::LdlmServer(Words options) : port_(free_port()), options_(std::move(options)) {
  if (server().path.empty()) throw std::runtime_error(missing());
  if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  start();
}

LdlmServer::~LdlmServer() {
  process_.reset();
  std::filesystem::remove_all(directory_);
}

void LdlmServer::kill() {
  process_->signal(SIGKILL);
  process_->wait();
}

void LdlmServer::start() {
  unlink((directory_ + "/ipc").c_str());
  Words words = {server().path,
                 "--listen_address",
                 "127.0.0.1:" + std::to_string(port_),
                 "--ipc_socket_file",
                 directory_ + "/ipc",
                 "--log_level",
                 "warn"};
  words.insert(words.end(), options_.begin(), options_.end());
  process_ = std::make_unique<Child>([&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // A test that is killed leaves no server.
    const int log = open((directory_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    exec(words);
    return 127;
  });
  if (!eventually([this] { return listens(port_); })) {
    throw std::runtime_error("the LDLM server does not listen: " + slurp(directory_ + "/log"));
  }
}

bool LdlmPython::is_here() { return is_required() || !client().path.empty(); }
std::string LdlmPython::missing() { return "no Python client of LDLM here: " + client().missing; }

int LdlmPython::run(int port, const std::string& script, const std::vector<std::string>& args) {
  const std::string before =
      "import sys, time, ldlm\n"
      "client = ldlm.Client('127.0.0.1:" +
      std::to_string(port) +
      "', retries=0)\n"
      "args = sys.argv[1:]\n";
  Child child([&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("PYTHONPATH", client().path.c_str(), 1);
    std::vector<std::string> words = {"python3", "-c", before + script};
    words.insert(words.end(), args.begin(), args.end());
    exec(words);
    return 127;
  });
  return child.wait();
}

}  // namespace lockfs::test
