// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/blind_engine.h"
#include "backends/outlet.h"
#include "backends/redis/connection.h"
#include "backends/redis/redis_url.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `redis://...?layout=go-dlm`: each lock is a key that SET NX PX makes, as programs of
/// github.com/MEDIGO/go-dlm and many others do. Exclusive only, for other mounts; nobody queues:
/// who waits tries again and again, as they do. What a mount holds is renewed at a third of its
/// lease. The keys are the server's to end, by its clock. All on the loop.
class GoDlmBackend final : public BlindEngine, private redis::Connection::Events {
 public:
  /// How often is tried again while something waits; go-dlm itself waits 5 s.
  static constexpr auto kRetry = std::chrono::milliseconds(100);
  /// How long an acquire waits for a server that is out of reach, since it is.
  static constexpr auto kPatience = std::chrono::milliseconds(900);

  /// `loop` outlives this.
  GoDlmBackend(EventLoop& loop, const redis::Url& url);
  ~GoDlmBackend() override;
  GoDlmBackend(const GoDlmBackend&) = delete;
  GoDlmBackend& operator=(const GoDlmBackend&) = delete;

  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override;
  void start(ClaimEvents& events) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;

 private:
  struct Claim {
    std::string key;
    std::string token;  ///< The key's value: who it is. Another one each time.
    Mode asked = Mode::kNL;
    bool now = false;
    bool held = false;
    uint64_t number = 0;    ///< Of what was asked for last.
    bool pending = false;   ///< Asked for, and neither granted nor refused.
    bool asking = false;    ///< The server is asked just now.
    bool doubtful = false;  ///< It was, and did not answer.
    TimePoint since;        ///< When it was asked for.
    TimePoint lease_end;    ///< Of what is held.
  };

  void opened(redis::Connection& connection) override;
  void pushed(redis::Connection& connection, const redisReply& message) override;
  void closed(redis::Connection& connection, const std::string& why) override;
  void open();
  void down(const std::string& why);
  void evaluate(std::string_view script, const std::vector<std::string>& keys,
                const std::vector<std::string>& words, redis::Connection::Done done);
  void ask(ClaimId id);
  void heard(ClaimId id, const std::string& token, TimePoint sent, const redisReply* answer);
  static bool is_known(const Claim& claim) { return claim.held || claim.asking || claim.doubtful; }
  void delete_key(const std::string& key, const std::string& token);
  void fail(ClaimId id, LockErrc why);
  void lose(ClaimId id);
  void tick();
  void look_at(TimePoint when);
  void renew();
  void look_at_memory();
  std::string milliseconds_of_lease() const;
  std::string key_of(std::string_view lockspace, std::string_view name) const;

  EventLoop& loop_;
  redis::Url url_;
  std::unordered_map<ClaimId, Claim> claims_;
  std::vector<std::pair<std::string, std::string>> given_up_;  ///< Keys to delete, with values.
  uint64_t last_token_ = 0;
  std::string identity_;  ///< Random: no two mounts have the same.
  bool up_ = false;
  bool opening_ = false;
  std::string logged_;
  TimePoint opened_at_;
  TimePoint down_since_;
  TimePoint heard_at_;
  TimePoint renewed_at_;
  TimePoint looked_at_;   ///< When it was asked last whether it throws keys away.
  bool may_look_ = true;  ///< Not when the server has refused that once.
  TimerId tick_ = TimerId::kNone;
  TimePoint tick_at_;
  std::shared_ptr<Outlet> outlet_;
  redis::Connection connection_;
};

}  // namespace lockfs
