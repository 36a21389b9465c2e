// SPDX-License-Identifier: MIT
#pragma once
#include <hiredis/hiredis.h>

#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/net/stream.h"
#include "core/event_loop.h"

namespace lockfs::redis {

/// One connection to a Redis server: commands in a row, answers in the same. hiredis writes and
/// reads the protocol. Nothing waits; all is on the loop.
class Connection final : public net::Stream::Events {
 public:
  using Words = std::vector<std::string>;
  /// The answer, an error among them (REDIS_REPLY_ERROR); nullptr: the connection ended before it.
  using Done = std::function<void(const redisReply* answer)>;

  class Events {
   public:
    virtual ~Events() = default;
    virtual void opened(Connection& connection) = 0;
    /// What answers no command: of a subscription.
    virtual void pushed(Connection& connection, const redisReply& message) = 0;
    /// It ended; close() is to be called, and tells those who wait for an answer.
    virtual void closed(Connection& connection, const std::string& why) = 0;
  };

  Connection(EventLoop& loop, Events& events) : events_(events), stream_(loop, *this) {}
  ~Connection() override = default;

  void open(const net::Endpoint& server);
  bool is_open() const { return stream_.is_open(); }
  void send(const Words& command, Done done);
  /// Ends it as if the server had hung up: all Done are told, but not closed().
  void close();
  size_t unanswered() const { return waiting_.size(); }

 private:
  void opened() override { events_.opened(*this); }
  void received(std::string_view bytes) override;
  void closed(const std::string& why) override;
  void fail(const std::string& why);

  Events& events_;
  net::Stream stream_;
  std::unique_ptr<redisReader, void (*)(redisReader*)> reader_{nullptr, redisReaderFree};
  std::deque<Done> waiting_;
  uint64_t opens_ = 0;
};

/// Parts of answers, of whatever type they are: "" and {} where there is nothing of the kind.
std::string_view text_of(const redisReply* reply);
std::vector<std::string_view> texts_of(const redisReply* reply);
bool is_error(const redisReply* reply);

}  // namespace lockfs::redis
