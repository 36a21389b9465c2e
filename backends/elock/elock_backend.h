// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "backends/blind_engine.h"
#include "backends/elock/elock_url.h"
#include "backends/net/stream.h"
#include "backends/outlet.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `elock://`: a server of elock's protocol, ours or the original. One connection, one request at a
/// time, and what is not free is asked for again and again: what the original does with a queue, or
/// with requests in a row, may free a lock that somebody holds. Exclusive only, for other mounts;
/// others are not seen. All on the loop.
class ElockBackend final : public BlindEngine, private net::Stream::Events {
 public:
  /// How often is asked again for what somebody waits for.
  static constexpr auto kRetry = std::chrono::milliseconds(100);
  /// How long an acquire waits for a server that is out of reach.
  static constexpr auto kPatience = std::chrono::milliseconds(900);

  /// `loop` outlives this.
  ElockBackend(EventLoop& loop, const elock::Url& url);
  /// Unlocks what is held.
  ~ElockBackend() override;
  ElockBackend(const ElockBackend&) = delete;
  ElockBackend& operator=(const ElockBackend&) = delete;

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
    Mode mode = Mode::kNL;
    bool now = false;
    uint64_t number = 0;    ///< Of what was asked for last.
    bool pending = false;   ///< Asked for, and neither granted nor refused.
    bool asked = false;     ///< A lock command of it is in the queue, or on its way.
    bool turn = false;      ///< It is in fresh_ or polls_.
    bool doubtful = false;  ///< One had no answer: the server may have granted it.
    bool held = false;
    TimePoint since;
  };
  /// A time without a session that the server took up again: it saw the end of the connection, or
  /// of several, within it.
  struct Drop {
    TimePoint since;
    TimePoint until;
  };
  /// The answer's code; 0: there was none.
  using Done = std::function<void(int code)>;
  struct Command {
    std::string line;
    Done done;
    bool poll = false;  ///< Of what only waits.
  };

  void opened() override;
  void received(std::string_view bytes) override;
  void closed(const std::string& why) override { down(why); }
  void down(const std::string& why);
  void send(const std::string& line, Done done);
  void send_next();
  void ready();
  Duration rest() const;
  void ask(ClaimId id);
  void poll();
  void heard(ClaimId id, const std::string& key, int code);
  void unlock(const std::string& key);
  void fail(ClaimId id, LockErrc why);
  void lose_all();
  void keeps_from(TimePoint sent);
  void taken_up_again();
  void fear_former_drops();
  static bool is_known(const Claim& claim) { return claim.held || claim.asked || claim.doubtful; }
  bool up() const { return stage_ == Stage::kUp; }
  void tick();
  void open_again(TimePoint now);
  /// One line of the answer to `stats`; its code, if that was the last.
  int read_stat(std::string_view line);

  EventLoop& loop_;
  elock::Url url_;
  std::unordered_map<ClaimId, Claim> claims_;
  std::set<std::string> given_up_;  ///< Keys that the server may have for us still.
  uint64_t last_token_ = 0;
  /// By which the server knows us again, and whoever else says it: shown to nobody.
  std::string id_;
  enum class Stage { kDown, kOpening, kUp };
  Stage stage_ = Stage::kDown;
  TimePoint since_;  ///< When it went down; when the connection was there.
  TimePoint down_since_;
  std::string logged_;
  std::string input_;
  std::string said_;  ///< The last line of the server.
  using Stats = std::vector<std::pair<std::string, std::string>>;
  std::optional<Stats> reading_;  ///< The answer to `stats`, as far as it is there.
  Stats stats_;                   ///< The last one.
  std::deque<Command> commands_;  ///< The first is on its way.
  TimePoint sent_at_;             ///< Of that one.
  /// What is waited for, to be asked for one at a time: for the first time, and then again and
  /// again.
  std::deque<ClaimId> fresh_;
  std::deque<ClaimId> polls_;
  bool polling_ = false;       ///< One of these is in the queue, or on its way.
  bool polled_again_ = false;  ///< The last was of polls_.
  TimePoint beat_at_;
  TimePoint proven_;                    ///< When the session was there for sure, the last time.
  std::optional<TimePoint> lease_end_;  ///< Until then the server keeps what is held.
  std::deque<Drop> drops_;              ///< Those of the last `timeout` and a little more.
  bool feared_ = false;                 ///< lease_end_ is what they leave of it.
  bool resumes_ = false;  ///< The server says that a drop is forgotten when we are back.
  TimerId tick_ = TimerId::kNone;
  std::shared_ptr<Outlet> outlet_;
  net::Stream stream_;
};

}  // namespace lockfs
