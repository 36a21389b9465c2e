// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "core/journal.h"

namespace lockfs {

/// What one reader of the stream has had.
struct StreamPosition {
  bool begun = false;
  uint64_t offset = 0;  ///< Of its file: where its next read begins if it reads on.
  uint64_t at = 0;      ///< The byte of the stream that is there.
  uint64_t line = 0;    ///< The number of the event that `at` is in.
  std::string rest;     ///< Of a line that it had a part of, before `at`.
};

/// `.lockfs/events`: the journal as a text that grows at its end, a line an event. It is that of
/// all readers, so its size and offsets are those of a file, and `tail` works; its begin is
/// forgotten in time. Who reads on so slowly that lines are forgotten before it has had them is
/// told how many: {"event":"gap","lost":N}.
class EventStream {
 public:
  using ToLine = std::function<std::string(uint64_t number, const Happening& happening)>;

  /// `journal` outlives this. `to_line` makes JSON of an event, without a newline.
  EventStream(const Journal& journal, ToLine to_line)
      : journal_(journal), to_line_(std::move(to_line)) {}

  /// Takes over what is new in the journal. True if that was anything.
  bool catch_up();
  /// Bytes there were ever.
  uint64_t size() const { return end_; }
  /// What the reader's file has at `offset`, at most `size` bytes; empty at the end. A first read
  /// at 0 begins with the oldest line that is kept.
  std::string read(StreamPosition& position, uint64_t offset, size_t size) const;
  /// Would a reader that reads on get anything?
  bool has_more(const StreamPosition& position) const {
    return !position.rest.empty() || position.at < end_;
  }

 private:
  struct Line {
    uint64_t at = 0;
    std::string text;
  };
  uint64_t first() const { return next_ - lines_.size(); }
  void seek(StreamPosition& position, uint64_t at) const;

  const Journal& journal_;
  ToLine to_line_;
  std::deque<Line> lines_;  ///< The last, as many as the journal keeps, without a gap.
  uint64_t next_ = 0;       ///< The number of the event that makes the next one.
  uint64_t end_ = 0;
};

}  // namespace lockfs
