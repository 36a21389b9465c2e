// SPDX-License-Identifier: MIT
#include "fs/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>
#include <vector>

#ifndef LOCKFS_VERSION
#error LOCKFS_VERSION comes from the build
#endif

namespace lockfs {
namespace {

struct Series {
  std::string lockspace;
  std::string backend;
  SpaceStats stats;
  bool up = true;
};

// Why a request ended without a grant, as a label; deadlocks have a metric of their own.
constexpr std::array<std::pair<LockErrc, std::string_view>, 11> kReasons = {{
    {LockErrc::kWouldBlock, "would_block"},
    {LockErrc::kTimedOut, "timeout"},
    {LockErrc::kInterrupted, "interrupted"},
    {LockErrc::kUnreachable, "unreachable"},
    {LockErrc::kNotSupported, "not_supported"},
    {LockErrc::kLimit, "limit"},
    {LockErrc::kInvalid, "invalid"},
    {LockErrc::kBusy, "busy"},
    {LockErrc::kLost, "lost"},
    {LockErrc::kNotFound, "not_found"},
    {LockErrc::kNotYours, "not_yours"},
}};

// A label's value. What is no ASCII is escaped, as the format allows no bytes that are no UTF-8,
// and
// `%` with it, so that no two names become one.
std::string label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else if (byte >= 0x80 || c == '%') {
      out += fmt::format("%{:02X}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

// Those that are not counted apart come last, as one. Their sum stays when one of them ends.
std::vector<Series> series_of(const LockTable& table) {
  std::vector<Series> all;
  Series others = {std::string(kOtherSpaces), std::string(kOtherSpaces), table.former, true};
  bool any = false;
  for (const auto& [id, space] : table.lockspaces()) {
    const bool up = space->backend->trouble().empty();
    if (id <= kCountedApart) {
      all.push_back({label(space->name), space->backend->traits().name, space->stats, up});
      continue;
    }
    others.stats.add(space->stats);
    others.up = others.up && up;
    any = true;
  }
  if (any) all.push_back(std::move(others));
  return all;
}

class Page {
 public:
  void metric(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    fmt::format_to(out(), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <typename Value>
  void value(std::string_view labels, Value number) {
    const std::string braced = labels.empty() ? "" : fmt::format("{{{}}}", labels);
    fmt::format_to(out(), "{}{} {}\n", name_, braced, number);
  }
  void histogram(const std::string& lockspace, const Histogram& histogram) {
    uint64_t count = 0;
    for (size_t i = 0; i < histogram.counts.size(); ++i) {
      count += histogram.counts[i];
      const std::string bound =
          i < Histogram::kBounds.size() ? fmt::format("{}", Histogram::kBounds.at(i)) : "+Inf";
      fmt::format_to(out(), "{}_bucket{{lockspace=\"{}\",le=\"{}\"}} {}\n", name_, lockspace, bound,
                     count);
    }
    const double sum = std::chrono::duration<double>(histogram.sum).count();
    fmt::format_to(out(), "{}_sum{{lockspace=\"{}\"}} {}\n", name_, lockspace, sum);
    fmt::format_to(out(), "{}_count{{lockspace=\"{}\"}} {}\n", name_, lockspace, count);
  }
  std::string text() && { return std::move(text_); }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(text_); }
  std::string name_;
  std::string text_;
};

std::string in(const Series& series) { return "lockspace=\"" + series.lockspace + "\""; }

void add_grants(Page& page, const std::vector<Series>& all) {
  page.metric("lockfs_grants_total", "counter", "Requests granted, conversions included.");
  for (const Series& series : all) {
    for (size_t i = 0; i < series.stats.grants.size(); ++i) {
      const bool slot = i == kModeCount;
      if (i == static_cast<size_t>(Mode::kNL)) continue;
      const std::string_view mode = slot ? "SLOT" : mode_name(static_cast<Mode>(i));
      page.value(fmt::format("{},mode=\"{}\"", in(series), mode), series.stats.grants.at(i));
    }
  }
  page.metric(
      "lockfs_contended_grants_total", "counter",
      "Grants that had to wait: for a holder, or for the answer of an engine that hosts share.");
  for (const Series& series : all) {
    uint64_t count = 0;
    for (const uint64_t n : series.stats.wait.counts) count += n;
    page.value(in(series), count);
  }
}

void add_refusals(Page& page, const std::vector<Series>& all) {
  page.metric("lockfs_refusals_total", "counter",
              "Requests that ended without a grant, by reason; deadlocks apart.");
  for (const Series& series : all) {
    for (const auto& [code, reason] : kReasons) {
      page.value(fmt::format("{},reason=\"{}\"", in(series), reason),
                 series.stats.refusals.at(static_cast<size_t>(code)));
    }
  }
  page.metric("lockfs_deadlocks_total", "counter", "Requests refused with EDEADLK.");
  for (const Series& series : all) {
    page.value(in(series), series.stats.refusals.at(static_cast<size_t>(LockErrc::kDeadlock)));
  }
  page.metric("lockfs_losses_total", "counter",
              "Holders whose lock was taken from them: lost (ttl, backend) or broken by somebody.");
  for (const Series& series : all) {
    page.value(in(series) + ",cause=\"lost\"", series.stats.lost);
    page.value(in(series) + ",cause=\"broken\"", series.stats.broken);
  }
}

void add_times(Page& page, const std::vector<Series>& all) {
  page.metric("lockfs_waiters", "gauge", "Requests that wait now.");
  for (const Series& series : all) page.value(in(series), series.stats.waiters);
  page.metric("lockfs_holders", "gauge", "Descriptors that hold a lock now, above NL.");
  for (const Series& series : all) page.value(in(series), series.stats.holders);
  page.metric("lockfs_wait_seconds", "histogram", "How long grants that had to wait waited.");
  for (const Series& series : all) page.histogram(series.lockspace, series.stats.wait);
  page.metric("lockfs_hold_seconds", "histogram", "How long locks were held.");
  for (const Series& series : all) page.histogram(series.lockspace, series.stats.hold);
  page.metric("lockfs_backend_up", "gauge",
              "1 while the lockspace's backend is in reach, as far as is known.");
  for (const Series& series : all) {
    page.value(fmt::format("{},backend=\"{}\"", in(series), series.backend), series.up ? 1 : 0);
  }
}

}  // namespace

std::string metrics_text(const LockTable& table, size_t open_descriptors) {
  const std::vector<Series> all = series_of(table);
  Page page;
  page.metric("lockfs_build_info", "gauge", "1; which lockfs this is.");
  page.value("version=\"" LOCKFS_VERSION "\"", 1);
  add_grants(page, all);
  add_refusals(page, all);
  add_times(page, all);
  page.metric("lockfs_lockspaces", "gauge", "Lockspaces of this mount.");
  page.value("", table.lockspaces().size());
  page.metric("lockfs_open_descriptors", "gauge", "Open files of this mount.");
  page.value("", open_descriptors);
  page.metric("lockfs_events_total", "counter", "Events there were, read or not.");
  page.value("", table.journal.end());
  return std::move(page).text();
}

}  // namespace lockfs
