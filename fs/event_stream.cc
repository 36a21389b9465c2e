// SPDX-License-Identifier: MIT
#include "fs/event_stream.h"

#include <algorithm>

namespace lockfs {
namespace {

// Stands for what was never made to lines, so that a gap takes a reader's offset no further than
// the size: a gap's line is shorter.
constexpr uint64_t kHole = 64;

std::string gap(uint64_t lost) {
  return R"({"event":"gap","lost":)" + std::to_string(lost) + "}\n";
}

}  // namespace

bool EventStream::catch_up() {
  if (next_ == journal_.end()) return false;
  if (next_ < journal_.begin()) {  // All that we have is older still.
    lines_.clear();
    end_ += kHole;
    next_ = journal_.begin();
  }
  for (; next_ < journal_.end(); ++next_) {
    lines_.push_back({end_, to_line_(next_, journal_.at(next_)) + "\n"});
    end_ += lines_.back().text.size();
    if (lines_.size() > Journal::kKept) lines_.pop_front();
  }
  return true;
}

// To a byte of the stream, which may be forgotten.
void EventStream::seek(StreamPosition& position, uint64_t at) const {
  const auto after =
      std::upper_bound(lines_.begin(), lines_.end(), at,
                       [](uint64_t byte, const Line& line) { return byte < line.at; });
  const bool kept = after != lines_.begin();
  const auto index = kept ? after - lines_.begin() - 1 : 0;
  position.line = first() + static_cast<uint64_t>(index);
  position.at = std::min(at, end_);
  if (position.at == end_) position.line = next_;
  position.rest.clear();
}

std::string EventStream::read(StreamPosition& position, uint64_t offset, size_t size) const {
  const bool begins = !position.begun && offset == 0;
  if (begins) {
    seek(position, lines_.empty() ? end_ : lines_.front().at);
  } else if (!position.begun || offset != position.offset) {
    seek(position, offset);
  }
  position.begun = true;
  std::string out = std::move(position.rest);
  if (position.line < first()) {
    out += gap(first() - position.line);
    position.line = first();
    position.at = lines_.front().at;
  }
  while (out.size() < size && position.at < end_) {
    const Line& line = lines_[position.line - first()];
    if (position.at < line.at) {  // Forgotten, and somebody has gone back there: as blank lines.
      const auto blank = std::min<uint64_t>(size - out.size(), line.at - position.at);
      out.append(blank, '\n');
      position.at += blank;
      continue;
    }
    out.append(line.text, position.at - line.at, std::string::npos);
    position.at = line.at + line.text.size();
    ++position.line;
  }
  position.rest = out.size() > size ? out.substr(size) : std::string();
  out.resize(std::min(out.size(), size));
  position.offset = offset + out.size();
  return out;
}

}  // namespace lockfs
