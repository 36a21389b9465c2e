// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/net/endpoint.h"
#include "backends/net/resolver.h"
#include "backends/outlet.h"
#include "core/event_loop.h"

struct ssl_st;
struct ssl_ctx_st;

namespace lockfs::net {

/// Bytes to a server and from it, on the loop: no call waits. A name is resolved on a thread.
class Stream {
 public:
  class Events {
   public:
    virtual ~Events() = default;
    virtual void opened() = 0;
    /// May close the stream.
    virtual void received(std::string_view bytes) = 0;
    /// It could not be opened, or was closed by the other side.
    virtual void closed(const std::string& why) = 0;
  };

  Stream(EventLoop& loop, Events& events);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// How long it may take to connect to an address, or to several, TLS and all.
  static constexpr auto kOpenTime = std::chrono::seconds(3);
  /// Closes what is open; opened() or closed() follows, not from within, after kResolveTime and
  /// kOpenTime at the latest.
  void open(const Endpoint& server);
  /// Takes a connection that was accepted; it is open. At most `turn` bytes of it are received in
  /// one turn of the loop.
  void adopt(int fd, size_t turn);
  bool is_open() const { return state_ == State::kOpen; }
  /// Of an open stream; what cannot be sent at once is sent later.
  void send(std::string_view bytes);
  size_t unsent() const { return out_.size(); }
  /// No event follows.
  void close();

 private:
  static constexpr size_t kTurn = 65536;
  enum class State { kClosed, kResolving, kConnecting, kHandshake, kOpen };
  void resolved(std::vector<Address> addresses, const std::string& why);
  void connect_next(std::string why);
  bool connect_to(const Address& address);
  void tune() const;
  bool ready();
  void connected();
  bool start_tls();
  bool shake_hands();
  bool read_some();
  void write_some();
  void fail(const std::string& why);
  std::string tls_words() const;

  EventLoop& loop_;
  Events& events_;
  std::shared_ptr<Outlet> outlet_;
  Endpoint server_;
  State state_ = State::kClosed;
  uint64_t opens_ = 0;                 ///< So that what comes late finds another number.
  TimerId deadline_ = TimerId::kNone;  ///< Of what is connected to.
  std::vector<Address> addresses_;
  int fd_ = -1;
  size_t turn_ = kTurn;
  std::string out_;
  bool watching_writes_ = false;
  std::unique_ptr<ssl_ctx_st, void (*)(ssl_ctx_st*)> context_;
  std::unique_ptr<ssl_st, void (*)(ssl_st*)> tls_;
};

}  // namespace lockfs::net
