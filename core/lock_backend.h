// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/lock_errc.h"
#include "core/mode.h"

namespace lockfs {

/// Names one claim of this node; a plain value, never used twice, so that a late answer about a
/// claim that is gone is harmless.
enum class ClaimId : uint64_t { kNone = 0 };

/// Fencing tokens that come with a claim: the holder of an exclusive mode gets the next of
/// [next, end). When they are used up the table converts the claim to its own mode to get more.
struct TokenBlock {
  uint64_t next = 0;
  uint64_t end = 0;
};

/// What a backend can do. The table and the filesystem ask these and never which backend it is.
struct LockTraits {
  std::string name;               ///< "memory", "redis", ...
  bool shared_modes = true;       ///< CR..PW towards other nodes; if not, every claim is EX.
  bool fifo = true;               ///< Queues fairly among nodes.
  bool contention_hints = false;  ///< Says `contended`, so that a claim may be kept.
  bool slots = true;              ///< Knows counting semaphores.
  bool sees_other_nodes = true;   ///< Can inspect and list; a backend of one node sees all.
  bool other_nodes = false;       ///< Can there be other nodes at all?
  size_t max_name_bytes = 255;
};

/// Events up. Called on the loop thread only; a verb may call them before it returns.
class ClaimEvents {
 public:
  virtual ~ClaimEvents() = default;
  /// The claim is now held in `mode`. Once for each acquire that did not fail.
  virtual void granted(ClaimId claim, Mode mode, TokenBlock tokens) = 0;
  /// The acquire ended without a grant; what the claim held before it still holds.
  virtual void failed(ClaimId claim, LockErrc why) = 0;
  /// Another node has wanted the claim; a hint, may come late, often or never.
  virtual void contended(ClaimId claim) = 0;
  /// The claim is gone; nothing more is owed for it.
  virtual void lost(ClaimId claim, std::string_view why) = 0;
};

/// Verbs down: how a node takes part in the locks of others. Asynchronous: no verb waits, each
/// runs on the loop thread, answers come as events. `events` is registered once, before any verb.
class LockBackend {
 public:
  virtual ~LockBackend() = default;
  virtual const LockTraits& traits() const = 0;
  virtual void start(ClaimEvents& events) = 0;

  /// Ask for `mode` on `name`; a claim that is held already is converted, and keeps its old mode
  /// until then. With `now`, fail with kWouldBlock rather than wait. One acquire of a claim at a
  /// time; it is answered by one `granted` or `failed`, unless the claim is released first.
  virtual void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
                       bool now) = 0;
  /// End a pending acquire. Cannot fail, and may lose against a grant: one answer still comes,
  /// `failed(kInterrupted)` or `granted`.
  virtual void cancel(ClaimId claim) = 0;
  /// Give the claim up, pending or held. Cannot fail; no event of this claim follows.
  virtual void release(ClaimId claim) = 0;
};

}  // namespace lockfs
