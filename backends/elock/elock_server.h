// SPDX-License-Identifier: MIT
#pragma once
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_map>
#include <vector>

#include "backends/memory.h"
#include "backends/net/listener.h"
#include "backends/net/stream.h"
#include "core/event_loop.h"
#include "core/lock_table.h"

namespace lockfs::elock {

/// elock's port.
inline constexpr uint16_t kPort = 11400;

/// What a server says to a client that holds as many locks as it may. The original has no limit.
inline constexpr std::string_view kTooManyLocks = "400 Too many locks";

/// What a server of elock's protocol allows.
struct Limits {
  size_t clients = 1000;
  size_t locks = 10000;                            ///< That one client may hold.
  size_t line = 4096;                              ///< Bytes.
  Duration idle = std::chrono::minutes(10);        ///< Of a client that holds and wants nothing.
  Duration longest_grace = std::chrono::hours(1);  ///< That a client may ask for.
};

/// Answers elock's protocol (github.com/dustin/elock) from the lock table: a line a request, a line
/// an answer. A client is a session: its locks outlive its connection by set_timeout (30 s unless
/// told), in which `conn_id ID` on another connection takes it up again. Unlike the original: a
/// client that leaves its place in a queue is out of it, an unlock is one, a session that comes
/// again is as if it had never been away ("STAT resumes 1"), ids cannot be guessed, and what is no
/// request gets an answer in words. However much one client says, the others have
/// their turns. All on the loop.
class Server final : private LockObserver {
 public:
  /// `loop` outlives it.
  static tl::expected<std::unique_ptr<Server>, std::string> open(EventLoop& loop,
                                                                 const net::Endpoint& at,
                                                                 const Limits& limits);
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  struct Client;
  struct Session {
    std::string id;
    Client* client = nullptr;  ///< Null while nobody is connected.
    Duration grace = std::chrono::seconds(30);
    std::map<std::string, OwnerId> held;
    TimerId ending = TimerId::kNone;
  };
  using Words = std::vector<std::string_view>;

  /// Nothing of processes is known here.
  class NoProcesses final : public Processes {
   public:
    pid_t process_of(pid_t /*tid*/) override { return 0; }
    bool sole_releaser(pid_t /*process*/, TimePoint /*since*/, uint64_t /*inode*/,
                       size_t /*descriptions*/) override {
      return false;
    }
    ProcessInfo describe(pid_t /*tid*/) override { return {}; }
  };

  Server(EventLoop& loop, const Limits& limits);
  void accepted(int fd);
  void read(Client& client);
  void read_later(Client& client);
  void take(Client& client, std::string_view line);
  void lock(Client& client, const Words& words);
  void unlock(Client& client, const std::string& key);
  void unlock_all(Client& client);
  void conn_id(Client& client, const Words& words);
  void set_timeout(Client& client, std::string_view text);
  std::string stats() const;
  Session& session_of(Client& client);
  void end(Session& session);
  void gone(Client& client);
  void touch(Client& client);
  void answered(OwnerId owner, LockErrc result) override;
  void lost(OwnerId /*owner*/, std::string_view /*why*/) override {}
  void changed(const Lock& /*lock*/) override {}

  EventLoop& loop_;
  Limits limits_;
  MemoryBackend backend_;
  NoProcesses processes_;
  LockTable table_;
  Lockspace& space_;
  std::list<Client> clients_;
  std::unordered_map<std::string, Session> sessions_;  ///< By id.
  std::unordered_map<OwnerId, Client*> waiting_;
  std::shared_ptr<Outlet> outlet_;
  std::unique_ptr<net::Listener> listener_;
};

}  // namespace lockfs::elock
