// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <vector>

#include "ctl/picture.h"

namespace lockfs::ctl {

/// What `lockctl top` shows of one lock. Times in seconds.
struct TopRow {
  std::string name;
  std::string mode;
  std::string pid;
  std::string user;
  std::string command;
  size_t waiters = 0;
  double waiting = 0;  ///< How long who waits longest has waited by now.
  double held = 0;     ///< How long who holds longest has held by now.
  double rate = 0;     ///< Grants a second, since the last look.
  double wait_mean = 0;
  double hold_mean = 0;
};

/// One column: what it shows, and which lock comes first when the list is sorted by it.
struct TopColumn {
  const char* heading;
  char key;  ///< Pressed, it sorts by this column.
  size_t width;
  bool to_the_right;
  std::string (*cell)(const TopRow& row);
  bool (*before)(const TopRow& a, const TopRow& b);
};
const std::vector<TopColumn>& top_columns();
/// The column that a list begins with: who is waited for most comes first.
constexpr size_t kContended = 2;

/// Turns looks at the mount into rows; remembers the last look, for the rates.
class TopRows {
 public:
  /// `seconds` since the last look.
  std::vector<TopRow> look(const std::vector<Picture>& locks, double seconds);

 private:
  std::map<std::string, uint64_t> grants_;
};

/// By that column; equals by waiters, then by name.
void sort_rows(std::vector<TopRow>& rows, size_t column, bool reverse);

/// One line of the list, of at most that many columns.
std::string top_headings(size_t columns);
std::string top_line(const TopRow& row, size_t columns);

}  // namespace lockfs::ctl
