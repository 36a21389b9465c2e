// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace lockfs::dlm {

/// What a node of a DLM cluster lacks, in words that say what to do; nullopt when all is there:
/// the kernel's DLM, the right to use it, corosync with quorum, dlm_controld. Asks them all once.
std::optional<std::string> what_is_missing();

/// What corosync says of the cluster's present membership.
struct Ring {
  bool told = false;
  bool quorate = false;
  uint64_t sequence = 0;
};

/// The sequence number of the cluster's present membership: it grows with each change, by four, on
/// all nodes alike, and corosync keeps it over its own restarts.
class RingSequence {
 public:
  RingSequence() = default;
  ~RingSequence();
  RingSequence(const RingSequence&) = delete;
  RingSequence& operator=(const RingSequence&) = delete;
  /// As it is now. Waits for corosync; nullopt when that does not answer.
  std::optional<uint64_t> ask();
  /// When it was last asked.
  bool quorate() const { return ring_.quorate; }

 private:
  uint64_t handle_ = 0;
  Ring ring_;
};

/// Whether dlm_controld was told not to fence: then a node that is cut off goes on as if it still
/// held what others are granted meanwhile.
bool fencing_is_off();

/// Whether two halves of the cluster may both have quorum (two_node); `node` is this one. True when
/// corosync does not say.
bool halves_may_both_have_quorum(uint32_t node);

/// Tells when the cluster gains or loses quorum: its connection can be read when that may have
/// changed.
class QuorumWatch {
 public:
  QuorumWatch();
  ~QuorumWatch();
  QuorumWatch(const QuorumWatch&) = delete;
  QuorumWatch& operator=(const QuorumWatch&) = delete;
  /// -1 when corosync does not answer.
  int fd() const { return fd_; }
  /// Takes what there is. False when corosync has gone.
  bool take();
  bool quorate() const { return ring_.quorate; }

 private:
  Ring ring_;
  uint64_t handle_ = 0;
  int fd_ = -1;
};

/// Tells of the end of dlm_controld: its connection, which can be read when it has ended. The
/// kernel then stops this node's lockspaces, and other nodes may take what is held here.
class ControldWatch {
 public:
  ControldWatch();
  ~ControldWatch();
  ControldWatch(const ControldWatch&) = delete;
  ControldWatch& operator=(const ControldWatch&) = delete;
  /// -1 when it was not there.
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace lockfs::dlm
