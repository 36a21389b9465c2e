// SPDX-License-Identifier: MIT
#include "tests/support/redis_server.h"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using Context = std::unique_ptr<redisContext, void (*)(redisContext*)>;
using Reply = std::unique_ptr<void, void (*)(void*)>;

std::string text_of(const redisReply& reply) {
  if (reply.type == REDIS_REPLY_INTEGER) return std::to_string(reply.integer);
  if (reply.type != REDIS_REPLY_ARRAY) {
    return reply.str == nullptr ? "" : std::string(reply.str, reply.len);
  }
  std::string out;
  for (size_t i = 0; i < reply.elements; ++i) out += text_of(*reply.element[i]) + "\n";
  return out;
}

}  // namespace

bool RedisServer::is_here() {
  const char* required = getenv("LOCKFS_TEST_REQUIRE");
  if (required != nullptr && std::strstr(required, "redis") != nullptr) return true;
  return access("/usr/bin/redis-server", X_OK) == 0;
}

RedisServer::RedisServer(Words options, Words before)
    : port_(free_port()), options_(std::move(options)), before_(std::move(before)) {
  if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  for (size_t i = 0; i + 1 < options_.size(); ++i) {
    if (options_[i] == "--requirepass") password_ = options_[i + 1];
  }
  start();
}

RedisServer::~RedisServer() {
  process_.reset();
  std::filesystem::remove_all(directory_);
}

void RedisServer::kill() {
  process_->signal(SIGKILL);
  process_->wait();
}

void RedisServer::start() {
  Words words = before_;
  const Words own = {"redis-server",     "--port",    std::to_string(port_),
                     "--bind",           "127.0.0.1", "--unixsocket",
                     socket(),           "--dir",     directory_,
                     "--save",           "",          "--logfile",
                     directory_ + "/log"};
  words.insert(words.end(), own.begin(), own.end());
  words.insert(words.end(), options_.begin(), options_.end());
  process_ = std::make_unique<Child>([&words] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // A test that is killed leaves no server.
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    return 127;
  });
  const auto answers = [this] {
    try {
      return command({"PING"}) == "PONG";
    } catch (const std::runtime_error&) {
      return false;
    }
  };
  if (!eventually(answers)) throw std::runtime_error("redis-server: " + slurp(directory_ + "/log"));
}

std::string RedisServer::command(const Words& words) const {
  const Context context(redisConnectUnix(socket().c_str()), redisFree);
  if (context == nullptr || context->err != 0) throw std::runtime_error("no Redis server");
  if (!password_.empty()) {
    const Reply login(redisCommand(context.get(), "AUTH %s", password_.c_str()), freeReplyObject);
  }
  std::vector<const char*> argv;
  std::vector<size_t> sizes;
  for (const std::string& word : words) {
    argv.push_back(word.data());
    sizes.push_back(word.size());
  }
  const Reply reply(
      redisCommandArgv(context.get(), static_cast<int>(argv.size()), argv.data(), sizes.data()),
      freeReplyObject);
  if (reply == nullptr) throw std::runtime_error("no answer of the Redis server");
  return text_of(*static_cast<const redisReply*>(reply.get()));
}

void RedisServer::set(const std::string& key, const std::string& value) const {
  command({"SET", key, value});
}

std::string RedisServer::run_id() const {
  const std::string info = command({"INFO", "server"});
  const size_t at = info.find("run_id:");
  if (at == std::string::npos) throw std::runtime_error("INFO has no run_id");
  return info.substr(at + 7, 40);
}

}  // namespace lockfs::test
