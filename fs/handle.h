// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/lock_table.h"
#include "fs/event_stream.h"
#include "fs/node_table.h"
#include "fs/pidfd.h"

struct fuse_pollhandle;

namespace lockfs {

/// What is read from an open file: made as a whole, read in pieces. A read at offset 0, and the
/// first after a write or an end of file, begins a new text; `base` is the offset it began at.
struct Cursor {
  std::string text;   ///< Freed when its end was read.
  size_t length = 0;  ///< Of the text.
  uint64_t base = 0;
  bool fresh = true;  ///< The next read makes a new text.
};

/// One open file description of a lock, or of a control or info file.
struct Handle {
  NodeId node = 0;
  Client opener;
  bool writable = false;  ///< Opened for writing.
  bool may_lock = true;   ///< Its opener may write the node, however it opened it.
  bool no_flush = false;  ///< The kernel sends no FLUSH for it.
  Cursor cursor;
  std::string answer;     ///< Of a control file: what the last command has to say.
  StreamPosition stream;  ///< Of `.lockfs/events`.

  // Of a lock only.
  OwnerId owner = OwnerId::kNone;
  std::vector<uint64_t> posix;  ///< lock_owner of the POSIX or OFD locks taken through it.
  std::string error;            ///< The last one, in words.
  std::string lost_why;
  int onlost = 0;
  std::shared_ptr<const Pidfd> onlost_to;  ///< The process that asked for onlost.
  uid_t onlost_uid = 0;
  fuse_pollhandle* poll = nullptr;
  std::optional<uint32_t> seen;     ///< lock.changes when its picture was last read.
  std::optional<size_t> elsewhere;  ///< A digest of what other nodes had when last looked at.
};

}  // namespace lockfs
