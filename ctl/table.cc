// SPDX-License-Identifier: MIT
#include "ctl/table.h"

#include <algorithm>

namespace lockfs::ctl {
namespace {

const std::string& shown(const std::string& entry) {
  static const std::string nothing = "-";
  return entry.empty() ? nothing : entry;
}

}  // namespace

std::string Table::text(const Style& style, bool headings) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = headings ? columns_of(columns_[i].heading) : 0;
    for (const auto& row : rows_) width = std::max(width, columns_of(shown(row[i])));
    widths.push_back(width);
  }
  const auto line = [&](const std::vector<std::string>& row) {
    std::string out;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string& entry = shown(row[i]);
      const std::string gap(widths[i] - columns_of(entry), ' ');
      out += (i == 0 ? "" : "  ") + (columns_[i].to_the_right ? gap + entry : entry + gap);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out;
  };
  std::string out;
  std::vector<std::string> names;
  for (const Column& column : columns_) names.push_back(column.heading);
  if (headings) out += style.heading(line(names)) + "\n";
  for (const auto& row : rows_) out += line(row) + "\n";
  return out;
}

}  // namespace lockfs::ctl
