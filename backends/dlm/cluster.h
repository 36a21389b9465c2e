// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace lockfs::dlm {

/// What a node of a DLM cluster lacks, in words that say what to do; nullopt when all is there:
/// the kernel's DLM, the right to use it, corosync with quorum, dlm_controld. Asks them all once.
std::optional<std::string> what_is_missing();

/// The sequence number of the cluster's present membership: it grows with each change, on all
/// nodes alike, and corosync keeps it over its own restarts. Waits for corosync; nullopt when it
/// does not answer.
std::optional<uint64_t> ring_sequence();

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
