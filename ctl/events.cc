// SPDX-License-Identifier: MIT
#include "ctl/events.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/failure.h"
#include "ctl/lock_path.h"
#include "ctl/output.h"
#include "ctl/process.h"
#include "system/open_file.h"

namespace lockfs::ctl {
namespace {

using nlohmann::json;

std::string text_of(const json& event, const char* key) {
  const auto found = event.find(key);
  if (found == event.end() || found->is_null()) return {};
  return printable(found->is_string() ? found->get<std::string>() : found->dump());
}

double number_of(const json& event, const char* key) {
  const auto found = event.find(key);
  return found != event.end() && found->is_number() ? found->get<double>() : 0;
}

std::string who(const json& event) {
  const std::string comm = text_of(event, "comm");
  std::string out = event.contains("pid")      ? "pid " + text_of(event, "pid")
                    : event.contains("thread") ? "thread " + text_of(event, "thread")
                                               : "";
  if (!comm.empty()) out += out.empty() ? comm : " (" + comm + ")";
  const auto uid = event.find("uid");
  if (uid != event.end() && uid->is_number_unsigned()) out += " of " + user_name(uid->get<uid_t>());
  const std::string host = text_of(event, "host");
  if (!host.empty()) out += " on " + host;
  return out.empty() ? "somebody" : out;
}

std::string mode(const json& event) {
  const std::string text = text_of(event, "mode");
  return text.empty() ? "" : " " + text;
}

std::string after(const json& event, const char* lead, const char* key) {
  const double seconds = number_of(event, key);
  return seconds > 0 ? lead + duration_in_words(seconds) : "";
}

std::string because(const json& event) {
  const std::string why = text_of(event, "why");
  return why.empty() ? "" : ": " + why;
}

// What has happened, by the event's name.
std::string happened(const json& event, const std::string& name, const Style& style) {
  if (name == "granted") {
    return style.good("granted") + mode(event) + " to " + who(event) +
           after(event, " after ", "waited");
  }
  if (name == "released") {
    return "released" + mode(event) + " by " + who(event) + after(event, ", held ", "held");
  }
  if (name == "waiting") return who(event) + " waits for" + mode(event);
  if (name == "timeout" || name == "interrupted") {
    return style.bad(name) + ": " + who(event) + " gave up waiting for" + mode(event) +
           after(event, " after ", "waited");
  }
  if (name == "deadlock") {
    return style.bad("deadlock") + ": " + who(event) + " would wait for itself" +
           (mode(event).empty() ? "" : ", for" + mode(event));
  }
  if (name == "lost") return style.bad("lost") + mode(event) + " by " + who(event) + because(event);
  if (name == "broken") {
    return style.bad("broken") + ", " + who(event) + " has lost it" + because(event);
  }
  if (name == "started") return "lockfs " + text_of(event, "version") + " has begun";
  const std::string backend = text_of(event, "backend");
  if (name == "backend_up") return "the backend " + backend + " is in reach";
  if (name == "backend_down") {
    return style.bad("the backend " + backend + " is out of reach") + because(event);
  }
  if (name == "gap") {
    return style.bad(fmt::format("{} events were not read in time", text_of(event, "lost")));
  }
  return (name.empty() ? "something happened" : name) + mode(event) + ", " + who(event) +
         because(event);
}

std::string lock_of(const json& event) {
  const std::string lock = text_of(event, "lock");
  const std::string space = text_of(event, "lockspace");
  if (lock.empty()) return space.empty() ? "" : space + ": ";
  return (space.empty() ? "" : space + "/") + file_name(lock) + ": ";
}

}  // namespace

std::string event_in_words(const std::string& line, const Style& style) {
  const json event = json::parse(line, nullptr, false);
  if (!event.is_object()) return printable(line);
  const std::string time = time_in_words(
      event.value("time", json()).is_string() ? event["time"].get<std::string>() : "--:--:--");
  const std::string name = text_of(event, "event");
  return fmt::format("{}  {}{}", style.dim(time), style.heading(lock_of(event)),
                     happened(event, name, style));
}

std::string event_as_json(const std::string& line) {
  using nlohmann::ordered_json;
  const auto event = ordered_json::parse(line, nullptr, false);
  if (event.is_discarded()) return printable(line);
  return event.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

int follow(int fd, const std::function<void(const std::string&)>& line) {
  std::array<char, 65536> piece{};
  std::string text;
  ssize_t n = 0;
  while ((n = read(fd, piece.data(), piece.size())) > 0 || (n < 0 && errno == EINTR)) {
    if (n < 0) continue;
    text.append(piece.data(), static_cast<size_t>(n));
    size_t begin = 0;
    for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      line(text.substr(begin, end - begin));
    }
    text.erase(0, begin);
  }
  const int error = n < 0 ? errno : 0;
  if (!text.empty()) line(text);
  return error;
}

ExitCode show_events(const MountPoint& mount, const EventsOptions& options) {
  const OpenFile file(open(mount.info_file("events").c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    fail_if_ended(mount, "events", errno);
    throw Failure(
        exit_code_of(errno),
        errno == ENOENT
            ? fmt::format("the lockfs of {} tells no events: it is older than lockctl",
                          printable(mount.path))
            : fmt::format(
                  "{}: {}{}", printable(mount.info_file("events")), std::strerror(errno),
                  errno == EACCES ? ": events tell of all lockspaces, so they are root's" : ""));
  }
  const Style style = Style::of(STDOUT_FILENO);
  const int error = follow(file.get(), [&](const std::string& line) {
    std::cout << (options.json ? event_as_json(line) : event_in_words(line, style)) << "\n";
    finish_output();
  });
  if (error == 0) return ExitCode::kOk;
  fail_if_ended(mount, "events", error);
  throw Failure(exit_code_of(error),
                fmt::format("{}: {}", printable(mount.info_file("events")), std::strerror(error)));
}

}  // namespace lockfs::ctl
