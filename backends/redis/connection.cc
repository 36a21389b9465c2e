// SPDX-License-Identifier: MIT
#include "backends/redis/connection.h"

#include <utility>

namespace lockfs::redis {

void Connection::open(const net::Endpoint& server) {
  close();
  reader_.reset(redisReaderCreate());
  stream_.open(server);
}

void Connection::send(const Words& command, Done done) {
  std::vector<const char*> words;
  std::vector<size_t> sizes;
  for (const std::string& word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  char* text = nullptr;
  const long long size =
      redisFormatCommandArgv(&text, static_cast<int>(words.size()), words.data(), sizes.data());
  if (size < 0) return done(nullptr);
  waiting_.push_back(std::move(done));
  stream_.send({text, static_cast<size_t>(size)});
  redisFreeCommand(text);
}

void Connection::close() {
  ++opens_;
  stream_.close();
  for (const Done& done : std::exchange(waiting_, {})) done(nullptr);
}

void Connection::received(std::string_view bytes) {
  const uint64_t opens = opens_;
  redisReaderFeed(reader_.get(), bytes.data(), bytes.size());
  while (opens == opens_) {
    void* raw = nullptr;
    if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK) {
      return fail(std::string("it does not speak Redis: ") + reader_->errstr);
    }
    if (raw == nullptr) return;
    const std::unique_ptr<void, void (*)(void*)> reply(raw, freeReplyObject);
    const auto* answer = static_cast<const redisReply*>(raw);
    if (waiting_.empty()) {
      events_.pushed(*this, *answer);
    } else {
      const Done done = std::move(waiting_.front());
      waiting_.pop_front();
      done(answer);
    }
  }
}

void Connection::closed(const std::string& why) { fail(why); }

void Connection::fail(const std::string& why) {
  ++opens_;
  stream_.close();
  events_.closed(*this, why);
}

std::string_view text_of(const redisReply* reply) {
  if (reply == nullptr || reply->str == nullptr) return {};
  return {reply->str, reply->len};
}

std::vector<std::string_view> texts_of(const redisReply* reply) {
  std::vector<std::string_view> out;
  if (reply == nullptr || reply->type != REDIS_REPLY_ARRAY) return out;
  for (size_t i = 0; i < reply->elements; ++i) out.push_back(text_of(reply->element[i]));
  return out;
}

bool is_error(const redisReply* reply) {
  return reply != nullptr && reply->type == REDIS_REPLY_ERROR;
}

}  // namespace lockfs::redis
