// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "ctl/words.h"

namespace lockfs::ctl {

/// Text in columns, each as wide as its widest entry; empty entries show as "-".
class Table {
 public:
  struct Column {
    std::string heading;
    bool to_the_right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// One entry a column, printable.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  /// A line each, none with spaces at its end; the headings first, if they are wanted.
  std::string text(const Style& style, bool headings = true) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lockfs::ctl
