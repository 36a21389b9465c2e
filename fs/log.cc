// SPDX-License-Identifier: MIT
#include "fs/log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

#include <array>
#include <chrono>
#include <cstdarg>
#include <cstdio>

#include "fs/fuse.h"

namespace lockfs {
namespace {

// syslog(3)'s priorities, by spdlog's levels.
constexpr std::array<int, 7> kPriority = {7, 7, 6, 4, 3, 2, 6};

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

class Formatter final : public spdlog::formatter {
 public:
  explicit Formatter(std::string format) : format_(std::move(format)) {}

  void format(const spdlog::details::log_msg& entry, spdlog::memory_buf_t& out) override {
    const std::string_view text(entry.payload.data(), entry.payload.size());
    const auto level = spdlog::level::to_string_view(entry.level);
    auto to = std::back_inserter(out);
    if (format_ == "json") {
      const auto time = std::chrono::time_point_cast<std::chrono::milliseconds>(entry.time);
      const auto ms = time.time_since_epoch().count() % 1000;
      fmt::format_to(to, R"({{"time":"{:%Y-%m-%dT%H:%M:%S}.{:03}Z","level":"{}","message":"{}"}})",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(entry.time)), ms,
                     std::string_view(level.data(), level.size()), escaped(text));
    } else if (format_ == "journald") {
      fmt::format_to(to, "<{}>{}", kPriority.at(static_cast<size_t>(entry.level)), one_line(text));
    } else {
      fmt::format_to(to, "lockfs: {}: {}", std::string_view(level.data(), level.size()),
                     one_line(text));
    }
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<Formatter>(format_);
  }

 private:
  std::string format_;
};

void log_libfuse(fuse_log_level level, const char* format, va_list args) {
  std::array<char, 512> line{};
  std::vsnprintf(line.data(), line.size(), format, args);
  // libfuse says some things in pieces, and ends them with a newline.
  static std::string text;
  text += line.data();
  if (!text.ends_with('\n')) return;
  while (text.ends_with('\n')) text.pop_back();
  spdlog::log(level <= FUSE_LOG_ERR ? spdlog::level::err : spdlog::level::warn, "{}", text);
  text.clear();
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

void set_up_log(const Options& options) {
  auto log =
      std::make_shared<spdlog::logger>("lockfs", std::make_shared<spdlog::sinks::stderr_sink_st>());
  log->set_level(spdlog::level::from_str(options.log_level));
  log->set_formatter(std::make_unique<Formatter>(options.log_format));
  log->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(log);
  fuse_set_log_func(log_libfuse);
}

void set_log_level(const std::string& level) {
  spdlog::default_logger()->set_level(spdlog::level::from_str(level));
}

void log_to_syslog(const Options& options) {
  auto sink = std::make_shared<spdlog::sinks::syslog_sink_st>("lockfs", LOG_PID, LOG_DAEMON, false);
  auto log = std::make_shared<spdlog::logger>("lockfs", sink);
  log->set_level(spdlog::level::from_str(options.log_level));
  spdlog::set_default_logger(log);
}

}  // namespace lockfs
