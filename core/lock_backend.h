// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/lock_errc.h"
#include "core/mode.h"

namespace lockfs {

/// Names one claim of this node; a plain value, never used twice, so that a late answer about a
/// claim that is gone is harmless.
enum class ClaimId : uint64_t { kNone = 0 };

/// Names one question of this node to its backend; never used twice either.
enum class QueryId : uint64_t { kNone = 0 };

/// Fencing tokens that come with a claim: the holder of an exclusive mode gets the next of
/// [next, end). When they are used up the table converts the claim to its own mode to get more.
struct TokenBlock {
  uint64_t next = 0;
  uint64_t end = 0;
};

/// The lock value block, as its holders share it.
struct LockValue {
  std::array<uint8_t, 32> bytes{};
  bool valid = true;  ///< False when a node died that could have written it.
};

/// A name that stays visible while it is free.
struct Pin {
  uid_t uid = 0;           ///< Who pinned it: this user, root and the lockspace's owner may unpin.
  uint16_t mode = 0666;    ///< Narrows the lockspace's bits.
  bool allocated = false;  ///< A numbered lock, handed out by `allocate`.

  bool operator==(const Pin&) const = default;
};

/// Who holds under a claim, as a person wants to know it. It travels with the claim.
struct Presence {
  std::string host;
  pid_t pid = 0;  ///< On that host; 0: unknown.
  std::string comm;
  uid_t uid = 0;
  std::string container;  ///< As in ProcessInfo.
  int64_t since = 0;      ///< Of the grant: nanoseconds since 1970 by that host's clock.
  std::string note;
  uint32_t more = 0;   ///< How many others of the same node hold with it.
  uint64_t token = 0;  ///< Its fencing token; 0: its mode takes none.
};

/// Slots of a counting semaphore that one claim has, of those that all nodes have together.
struct SlotClaim {
  uint32_t count = 0;
  uint32_t size = 0;

  bool operator==(const SlotClaim&) const = default;
};

/// A claim of some other node.
struct RemoteClaim {
  Mode mode = Mode::kNL;  ///< Held; or wanted, of one that waits.
  bool waiting = false;
  uint64_t token = 0;  ///< 0: unknown, or the mode takes none.
  Presence who;        ///< Empty where nothing is known: it is held elsewhere.
  bool slots = false;  ///< It has slots, or wants one; the mode is CW then.
};

/// What is known of a lock beyond this node. Pins are of no node: they are everybody's.
struct RemoteLock {
  std::string name;
  std::optional<Pin> pin;
  std::vector<RemoteClaim> claims;  ///< Of other nodes only, above NL.

  bool held() const {
    return std::any_of(claims.begin(), claims.end(), [](const auto& c) { return !c.waiting; });
  }
};

/// What a backend can do. The table and the filesystem ask these and never which backend it is.
struct LockTraits {
  std::string name;               ///< "memory", "redis", ...
  bool shared_modes = true;       ///< CR..PW towards other nodes; if not, every claim is EX.
  bool fifo = true;               ///< Queues fairly among nodes.
  bool contention_hints = false;  ///< Says `contended`, so that a claim may be kept.
  bool strict_turns = false;      ///< Nobody here overtakes another node that waits; of such hints.
  bool slots = true;              ///< Knows counting semaphores.
  bool sees_other_nodes = true;   ///< Can inspect and list; a backend of one node sees all.
  bool other_nodes = false;       ///< Can there be other nodes at all?
  bool keeps_pins = false;        ///< Pins outlive this daemon.
  bool value_block = true;        ///< Holders of all nodes share the lock value block.
  bool joins = false;             ///< A node takes part in a lockspace only once it has joined it.
  size_t max_name_bytes = 255;
  size_t max_lockspace_bytes = 255;

  bool shares_value() const { return other_nodes && value_block; }
};

/// Events up. Called on the loop thread only. `acquire` may call granted() or failed() of its claim
/// before it returns, a query answered() of its own; otherwise no event comes from within a verb.
class ClaimEvents {
 public:
  virtual ~ClaimEvents() = default;
  /// The claim is now held in `mode`. Once for each acquire that did not fail.
  virtual void granted(ClaimId claim, Mode mode, TokenBlock tokens) = 0;
  /// The lock's value block as the nodes share it; comes right before the grant that brought it.
  virtual void value(ClaimId /*claim*/, const LockValue& /*value*/) {}
  /// The acquire ended without a grant; what the claim held before it still holds. kUnreachable, of
  /// one who waits, is told to all who wait for the lock and need it.
  virtual void failed(ClaimId claim, LockErrc why) = 0;
  /// Another node has wanted the claim; a hint, may come late, often or never. Where
  /// traits().strict_turns: it wants it, since now; or longer, if this comes before the grant.
  virtual void contended(ClaimId claim) = 0;
  /// No other node wants it any more. A backend that knows may say so; where strict_turns, it does.
  virtual void uncontended(ClaimId /*claim*/) {}
  /// The claim is gone; nothing more is owed for it.
  virtual void lost(ClaimId claim, std::string_view why) = 0;
  /// trouble() says something else than before. May come from within a verb.
  virtual void reach_changed() = 0;
  /// The one answer to a query. `locks` is for inspect (none or one) and list.
  virtual void answered(QueryId query, LockErrc result, std::vector<RemoteLock> locks) = 0;
};

/// Verbs down: how a node takes part in the locks of others. Asynchronous: no verb waits, each
/// runs on the loop thread, answers come as events. `events` is registered once, before any verb.
class LockBackend {
 public:
  virtual ~LockBackend() = default;
  virtual const LockTraits& traits() const = 0;
  /// How it fares, for a person: what it reaches the others by, and what is wrong with that. Stable
  /// names, each with its words or number.
  virtual std::vector<std::pair<std::string, std::string>> status() const { return {}; }
  /// Why nothing new can be had, as far as is known now: its engine is out of reach; empty when it
  /// is in reach.
  virtual std::string trouble() const { return {}; }
  virtual void start(ClaimEvents& events) = 0;

  /// Where traits().joins: take part in a lockspace, which is made with `mode` if it is new. The
  /// other verbs of the lockspace may be called at once, and again after a failure.
  virtual void join(QueryId /*query*/, std::string_view /*lockspace*/, mode_t /*mode*/) {}
  /// Take part no more; nothing is claimed in it. kBusy when others of this host use it, or by
  /// `force` against them.
  virtual void leave(QueryId /*query*/, std::string_view /*lockspace*/, bool /*force*/) {}

  /// Ask for `mode` on `name`; a claim that is held already is converted, and keeps its old mode
  /// until then. NL is asked for, and kept, only where nodes share the value block. With `now`,
  /// fail with kWouldBlock rather than wait. One acquire of a claim at a time; it is answered by
  /// one `granted` or `failed`, unless the claim is released first. Of two conversions that block
  /// each other for ever, one fails with kDeadlock; it may be asked for again. A claim whose first
  /// acquire failed is gone.
  virtual void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
                       bool now) = 0;
  /// Where traits().slots and other_nodes: the same for slots, so many in all as the claim needs,
  /// in place of what it has. Granted as CW; kInvalid when others use slots of another size.
  virtual void acquire_slots(ClaimId /*claim*/, std::string_view /*lockspace*/,
                             std::string_view /*name*/, SlotClaim /*slots*/, bool /*now*/) {}
  /// End a pending acquire. Cannot fail, and may lose against a grant: one answer still comes,
  /// `failed(kInterrupted)` or `granted`.
  virtual void cancel(ClaimId claim) = 0;
  /// Give the claim up, pending or held. Cannot fail; no event of this claim follows.
  virtual void release(ClaimId claim) = 0;
  /// Who holds under a claim, or waits for it; for others to read. Again whenever it has changed.
  virtual void describe(ClaimId claim, const Presence& who) = 0;
  /// Where traits().value_block and other_nodes: what a holder of PW or EX wrote. Other nodes have
  /// it with their next grants, at the latest when the claim is made weaker or released.
  virtual void set_value(ClaimId /*claim*/, const LockValue& /*value*/) {}

  /// What is known of one name beyond this node: kOk with one lock, or with none when there is
  /// neither a claim of another node nor a pin; kUnreachable when nobody can tell.
  virtual void inspect(QueryId query, std::string_view lockspace, std::string_view name) = 0;
  /// The same of all names of a lockspace.
  virtual void list(QueryId query, std::string_view lockspace) = 0;
  /// Pin a name for all nodes, or change its pin. With `fresh`, kExists when it has one already.
  virtual void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
                   bool fresh) = 0;
  /// kNotFound when it has none.
  virtual void unpin(QueryId query, std::string_view lockspace, std::string_view name) = 0;
};

}  // namespace lockfs
