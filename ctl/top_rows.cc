// SPDX-License-Identifier: MIT
#include "ctl/top_rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

std::string time_or_nothing(double seconds) {
  return seconds > 0 ? duration_in_words(seconds) : "-";
}

// Means are often less than a tenth of a second.
std::string mean(double seconds) {
  if (seconds <= 0) return "-";
  return seconds < 1 ? fmt::format("{:.0f} ms", seconds * 1000) : duration_in_words(seconds);
}

std::string in_column(const std::string& text, const TopColumn& column) {
  const std::string shown = cut(text, column.width);
  const std::string gap(column.width - columns_of(shown), ' ');
  return column.to_the_right ? gap + shown : shown + gap;
}

template <typename Text>
std::string line_of(const Text& text, size_t columns) {
  std::string out;
  for (const TopColumn& column : top_columns()) {
    out += (out.empty() ? "" : " ") + in_column(text(column), column);
  }
  return cut(out, columns);
}

}  // namespace

const std::vector<TopColumn>& top_columns() {
  using Row = const TopRow&;
  static const std::vector<TopColumn> columns = {
      {"NAME", 'n', 24, false, [](Row row) { return row.name; },
       [](Row a, Row b) { return a.name < b.name; }},
      {"MODE", 'm', 4, false, [](Row row) { return row.mode; },
       [](Row a, Row b) { return a.mode < b.mode; }},
      {"WAITERS", 'w', 7, true, [](Row row) { return std::to_string(row.waiters); },
       [](Row a, Row b) { return a.waiters > b.waiters; }},
      {"WAITING", 'l', 10, true, [](Row row) { return time_or_nothing(row.waiting); },
       [](Row a, Row b) { return a.waiting > b.waiting; }},
      {"HELD", 'h', 10, true, [](Row row) { return time_or_nothing(row.held); },
       [](Row a, Row b) { return a.held > b.held; }},
      {"PID", 'i', 8, true, [](Row row) { return row.pid; },
       [](Row a, Row b) { return std::atoi(a.pid.c_str()) < std::atoi(b.pid.c_str()); }},
      {"USER", 'u', 8, false, [](Row row) { return row.user; },
       [](Row a, Row b) { return a.user < b.user; }},
      {"COMMAND", 'c', 15, false, [](Row row) { return row.command; },
       [](Row a, Row b) { return a.command < b.command; }},
      {"GRANTS/S", 'g', 8, true, [](Row row) { return fmt::format("{:.1f}", row.rate); },
       [](Row a, Row b) { return a.rate > b.rate; }},
      {"MEAN WAIT", 'a', 10, true, [](Row row) { return mean(row.wait_mean); },
       [](Row a, Row b) { return a.wait_mean > b.wait_mean; }},
      {"MEAN HOLD", 'd', 10, true, [](Row row) { return mean(row.hold_mean); },
       [](Row a, Row b) { return a.hold_mean > b.hold_mean; }},
  };
  return columns;
}

std::vector<TopRow> TopRows::look(const std::vector<Picture>& locks, double seconds) {
  std::vector<TopRow> rows;
  std::map<std::string, uint64_t> grants;
  for (const Picture& lock : locks) {
    TopRow row{lock.lock.shown(),   lock.mode, "-", "-", "-",
               lock.waiters_total,  0,         0,   0,   lock.stats.wait_mean,
               lock.stats.hold_mean};
    if (!lock.holders.empty()) {
      const Holder& holder = lock.holders.front();
      if (const std::string pid = pid_to_show(holder); !pid.empty()) row.pid = pid;
      row.user = printable(user_name(holder.uid));
      if (const std::string command = command_to_show(holder); !command.empty()) {
        row.command = command;
      }
    }
    for (const Holder& holder : lock.holders) row.held = std::max(row.held, holder.held);
    for (const Waiter& waiter : lock.waiters) row.waiting = std::max(row.waiting, waiter.waiting);
    const std::string name = lock.lock.name();
    const auto before = grants_.find(name);
    const uint64_t count = lock.stats.grants;
    if (before != grants_.end() && count > before->second && seconds > 0) {
      row.rate = static_cast<double>(count - before->second) / seconds;
    }
    grants[name] = count;
    rows.push_back(std::move(row));
  }
  grants_ = std::move(grants);
  return rows;
}

void sort_rows(std::vector<TopRow>& rows, size_t column, bool reverse) {
  for (const size_t by : {size_t{0}, kContended, column}) {
    std::stable_sort(rows.begin(), rows.end(), top_columns()[by].before);
  }
  if (reverse) std::reverse(rows.begin(), rows.end());
}

std::string top_headings(size_t columns) {
  return line_of([](const TopColumn& column) { return std::string(column.heading); }, columns);
}

std::string top_line(const TopRow& row, size_t columns) {
  return line_of([&](const TopColumn& column) { return column.cell(row); }, columns);
}

}  // namespace lockfs::ctl
