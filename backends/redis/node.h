// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/redis/connection.h"
#include "backends/redis/parts.h"
#include "backends/redis/redis_url.h"
#include "core/event_loop.h"
#include "core/mode.h"

namespace lockfs::redis {

/// What the server says of a lock of this node.
struct Record {
  std::string place;  ///< LOCKSPACE/NAME
  std::optional<Mode> held;
  std::optional<Mode> wanted;
  uint64_t op = 0;
  uint32_t slots = 0;  ///< That it holds; then `held` is CW.
};

/// What a node hears of. Any of them may call the node.
class NodeEvents {
 public:
  virtual ~NodeEvents() = default;
  /// The server is there, for the first time or again, and these are the node's records in it.
  /// What is not in them it does not have: its data was lost, or others have buried the node.
  virtual void came_up(std::vector<Record> records) = 0;
  /// The server is out of reach. What the node holds it holds until expired().
  virtual void went_down(const std::string& why) = 0;
  /// The lease ends before it could be renewed: the node holds nothing any more.
  virtual void expired(const std::string& why) = 0;
  /// The parts of a message to this node (locks.lua: P:to:NODE).
  virtual void told(const std::vector<std::string_view>& parts) = 0;
  /// The parts of a message to all (locks.lua: P:DATABASE:shown).
  virtual void shown(const std::vector<std::string_view>& parts) = 0;
  /// Locks are granted again: see Node::grace().
  virtual void grace_ended() = 0;
};

/// This mount as the server knows it: its connections, its lease, and its part in ending the leases
/// of others (locks.lua). All on the loop.
///
/// A lease is counted by those who would take over, each on its own clock: who has not moved for
/// its lease under somebody's eyes is buried. So no clock must agree with another, nor with the
/// server's; only their speed must, to a tenth. The node itself gives up a tenth earlier, counted
/// from when it sent what was answered last.
class Node final : private Connection::Events {
 public:
  /// Of a lease, which the node does not use itself.
  static constexpr int kMargin = 10;
  /// The first word tells what happened; nothing at all: it is unknown, came_up() will tell.
  using Answer = Parts;
  using Done = std::function<void(const Answer& answer)>;

  /// `loop` and `events` outlive this.
  Node(EventLoop& loop, Url url, NodeEvents& events);
  /// Leaves: what it holds is free, if the server hears of it.
  ~Node() override;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  void start();
  const std::string& id() const { return id_; }
  bool up() const { return stage_ == Stage::kUp; }
  /// Is what it holds its own? False from the end of the lease until came_up().
  bool holds_lease() const { return lease_end_ && Clock::now() < *lease_end_; }
  /// After a loss of data nothing is granted for a lease, so that all who hold are heard first.
  bool grace() const { return !grace_.empty(); }
  /// Why it is not up, in words.
  const std::string& trouble() const { return trouble_; }
  /// The server refuses us for a reason that does not pass by itself, such as a wrong password.
  bool refused() const { return refused_; }

  /// Calls a verb of locks.lua. While it is not up() there is no answer. If the server answers with
  /// an error the connection ends; then `refused` is called in place of `done`, if there is one.
  void call(const Connection::Words& verb, Done done, std::function<void()> refused = {});

 private:
  enum class Stage { kDown, kOpening, kGreeting, kUp };
  struct Seen {
    std::string beat;
    Duration lease{};
    TimePoint since;
  };

  void opened(Connection& connection) override;
  void pushed(Connection& connection, const redisReply& message) override;
  void closed(Connection& connection, const std::string& why) override;

  void open();
  void down(const std::string& why);
  void log_in(Connection& connection);
  void expect(Connection& connection, const Connection::Words& command,
              std::function<void(const redisReply&)> then);
  void refuse(std::string_view words);
  void prepare();
  void said(const redisReply& info);
  void said_memory(const redisReply& info);
  void hello();
  void greeted(const redisReply& answer, TimePoint sent);
  void settle();
  void tick();
  void beat();
  void beaten(const Answer& answer, TimePoint sent);
  void look_at_memory();
  void set_grace(std::string_view grace);
  void renew(TimePoint sent);
  void expire();
  void evaluate(const Connection::Words& verb, Connection::Done done);
  void send(const Connection::Words& command, Connection::Done done);

  EventLoop& loop_;
  Url url_;
  NodeEvents& events_;
  Connection commands_;
  Connection subscription_;
  Stage stage_ = Stage::kDown;
  std::string id_;
  std::string former_;  ///< The id under which a lease ended; to be buried.
  uint64_t link_ = 0;
  std::string script_;
  std::string run_;
  bool young_ = false;
  int channels_ = 0;  ///< That it is subscribed to, of two.
  std::string trouble_ = "not connected yet";
  std::string logged_;
  bool refused_ = false;
  bool ailing_ = false;  ///< It went down by an error, which the same command may meet again.
  Duration backoff_{};
  TimePoint since_;  ///< When the last of its connections was there; when it came up.
  TimePoint beat_at_;
  bool beating_ = false;
  TimePoint looked_at_;             ///< When it was asked last whether it throws keys away.
  TimePoint told_at_;               ///< When the last message came.
  std::vector<std::string> early_;  ///< Messages to this node that came before came_up().
  TimePoint asked_at_;              ///< When the oldest unanswered command was sent, or later.
  std::optional<TimePoint> lease_end_;
  TimerId lease_timer_ = TimerId::kNone;
  TimerId tick_ = TimerId::kNone;
  TimerId retry_ = TimerId::kNone;
  std::map<std::string, Seen> seen_;
  std::string grace_;
  std::string logged_grace_;
  TimePoint grace_since_;
};

}  // namespace lockfs::redis
