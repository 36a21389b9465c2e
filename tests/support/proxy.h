// SPDX-License-Identifier: MIT
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/grpc_messages.h"

namespace lockfs::test {

/// A port of the loopback that nobody listens at.
int free_port();
/// A connection to who listens there; -1 if nobody does.
int connect_to(int port);

/// A network between a mount and a server on the loopback, which a test can make slow or break.
/// A thread passes on what comes; from any thread it is told what to do.
class Proxy {
 public:
  /// Passes connections on to 127.0.0.1:`port`; with `grpc`, so that messages can be lost.
  explicit Proxy(int port, bool grpc = false);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  /// Where it listens.
  int port() const { return port_; }
  /// How long each piece takes, each way, in milliseconds.
  void slow(int milliseconds) { delay_ = milliseconds; }
  /// Nothing passes, and nobody is told: a network that is parted.
  void part(bool parted) { parted_ = parted; }
  /// What the server says is lost; what it is told arrives.
  void mute(bool muted) { muted_ = muted; }
  /// What the server says waits, on the connections whose client has said SUBSCRIBE.
  void hold_messages(bool held) { held_ = held; }
  /// Of what a gRPC server says, messages in which this occurs are lost; empty: none.
  void lose(const std::string& text);
  /// How many were.
  int lost() const { return lost_; }
  /// All connections are reset; new ones are, too, while `refuse`.
  void cut(bool refuse = false);
  /// Says this to all clients, as if the server did.
  void say(const std::string& text);
  /// How many connections there were.
  int accepted() const { return accepted_; }
  /// How many bytes went to the server.
  uint64_t sent() const { return sent_; }

 private:
  struct Piece {
    int64_t due;  ///< Milliseconds.
    std::string bytes;
  };
  struct Side {
    int fd = -1;
    std::vector<Piece> to;  ///< What it is to get.
    bool ended = false;     ///< It will send no more.
  };
  struct Pair {
    Side client;
    Side server;
    bool subscribes = false;
    GrpcMessages messages;  ///< Of the server.
  };
  void run();
  void accept_one();
  void take(Pair& pair, bool answers);
  void ask(Pair& pair);
  void give(Side& side);
  bool is_held(const Pair& pair, const Side& side) const;
  bool is_over(const Pair& pair) const;
  static void reset(Pair& pair);

  int port_ = 0;
  const int target_;
  const bool grpc_;
  int listener_ = -1;
  int wake_ = -1;
  std::atomic<int> delay_ = 0;
  std::atomic<bool> parted_ = false;
  std::atomic<bool> muted_ = false;
  std::atomic<bool> held_ = false;
  std::atomic<bool> refuse_ = false;
  std::atomic<bool> cut_ = false;
  std::atomic<bool> stop_ = false;
  std::atomic<int> accepted_ = 0;
  std::atomic<uint64_t> sent_ = 0;
  std::mutex mutex_;
  std::string say_;
  std::string lose_;
  std::atomic<int> lost_ = 0;
  std::vector<Pair> pairs_;
  std::thread thread_;
};

}  // namespace lockfs::test
