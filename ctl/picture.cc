// SPDX-License-Identifier: MIT
#include "ctl/picture.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>

#include "ctl/failure.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

using nlohmann::json;

// The value of a key, or what a T is without one: keys may be absent or null.
template <typename T>
T get(const json& from, const char* key) {
  if (!from.is_object()) return {};
  const auto found = from.find(key);
  if (found == from.end()) return {};
  if constexpr (std::is_same_v<T, std::string>) {
    return found->is_string() ? found->get<T>() : T{};
  } else if constexpr (std::is_same_v<T, bool>) {
    return found->is_boolean() && found->get<T>();
  } else {
    return found->is_number() ? found->get<T>() : T{};
  }
}

const json& list(const json& from, const char* key) {
  static const json nothing = json::array();
  const auto found = from.find(key);
  return found != from.end() && found->is_array() ? *found : nothing;
}

void read_party(const json& raw, Party& party) {
  party.mode = get<std::string>(raw, "mode");
  party.pid = get<pid_t>(raw, "pid");
  party.comm = get<std::string>(raw, "comm");
  party.uid = get<uid_t>(raw, "uid");
  party.host = get<std::string>(raw, "host");
  party.container = get<std::string>(raw, "container");
}

Holder to_holder(const json& raw) {
  Holder holder;
  read_party(raw, holder);
  holder.since = get<std::string>(raw, "since");
  holder.held = get<double>(raw, "held");
  holder.expires = get<std::string>(raw, "expires");
  holder.note = get<std::string>(raw, "note");
  holder.exited = get<bool>(raw, "exited");
  holder.lingering = get<bool>(raw, "lingering");
  const json opener = raw.value("opener", json::object());
  holder.opener = get<pid_t>(opener, "pid");
  holder.opener_comm = get<std::string>(opener, "comm");
  return holder;
}

Stats to_stats(const json& raw) {
  const json wait = raw.value("wait", json::object());
  const json hold = raw.value("hold", json::object());
  return {get<uint64_t>(raw, "grants"),   get<uint64_t>(raw, "contended"),
          get<uint64_t>(raw, "timeouts"), get<uint64_t>(raw, "deadlocks"),
          get<uint64_t>(raw, "lost"),     get<double>(wait, "mean"),
          get<double>(wait, "max"),       get<double>(hold, "mean"),
          get<double>(hold, "max")};
}

json scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!" || text.empty()) return text;  // It was quoted.
  const bool literal = text == "true" || text == "false" || text == "null";
  const bool number = text[0] == '-' || (text[0] >= '0' && text[0] <= '9');
  if (!literal && !number) return text;
  json value = json::parse(text, nullptr, false);
  return value.is_discarded() ? json(text) : value;
}

json to_json(const YAML::Node& node) {
  if (node.IsScalar()) return scalar(node);
  json out;
  if (node.IsSequence()) {
    out = json::array();
    for (const YAML::Node& item : node) out.push_back(to_json(item));
  } else if (node.IsMap()) {
    out = json::object();
    for (const auto& entry : node) out[entry.first.Scalar()] = to_json(entry.second);
  }
  return out;
}

// What the mount would say of a lock that it does not know.
json free_lock(const LockPath& lock) {
  const json times = {{"mean", 0.0}, {"max", 0.0}};
  return {{"lock", lock_name(lock.file)},
          {"lockspace", lock.lockspace},
          {"backend", nullptr},
          {"mode", "free"},
          {"pinned", false},
          {"token", 0},
          {"holders_total", 0},
          {"holders", json::array()},
          {"waiters_total", 0},
          {"waiters", json::array()},
          {"stats",
           {{"grants", 0},
            {"contended", 0},
            {"timeouts", 0},
            {"deadlocks", 0},
            {"lost", 0},
            {"wait", times},
            {"hold", times}}}};
}

}  // namespace

LockPath to_lock(const json& raw) {
  return {get<std::string>(raw, "lockspace"), file_name(get<std::string>(raw, "lock"))};
}

Waiter to_waiter(const json& raw) {
  Waiter waiter;
  read_party(raw, waiter);
  waiter.waiting = get<double>(raw, "waiting");
  waiter.deadline = get<std::string>(raw, "deadline");
  return waiter;
}

Picture to_picture(const json& raw) {
  Picture picture;
  picture.lock = to_lock(raw);
  picture.backend = get<std::string>(raw, "backend");
  if (const auto mode = get<std::string>(raw, "mode"); !mode.empty()) picture.mode = mode;
  picture.pinned = get<bool>(raw, "pinned");
  picture.token = get<uint64_t>(raw, "token");
  picture.elsewhere = get<std::string>(raw, "elsewhere");
  picture.value_block = get<std::string>(raw, "value_block");
  picture.holders_total = get<size_t>(raw, "holders_total");
  picture.waiters_total = get<size_t>(raw, "waiters_total");
  for (const json& holder : list(raw, "holders")) picture.holders.push_back(to_holder(holder));
  for (const json& waiter : list(raw, "waiters")) picture.waiters.push_back(to_waiter(waiter));
  picture.stats = to_stats(raw.value("stats", json::object()));
  picture.raw = raw;
  return picture;
}

json yaml_to_json(const std::string& yaml) {
  try {
    return to_json(YAML::Load(yaml));
  } catch (const YAML::Exception& error) {
    throw Failure(ExitCode::kSystem,
                  fmt::format("the mount's answer cannot be read: {}", error.what()));
  }
}

std::vector<Picture> to_pictures(const std::string& text) {
  const json all = json::parse(text, nullptr, false);
  if (!all.is_object()) throw Failure(ExitCode::kSystem, "the mount's locks.json is no JSON");
  std::vector<Picture> pictures;
  for (const json& lock : list(all, "locks")) pictures.push_back(to_picture(lock));
  return pictures;
}

std::vector<Picture> read_locks(const MountPoint& mount) {
  return to_pictures(read_info(mount, "locks.json"));
}

std::string as_told(const std::string& name) {
  return json::parse(json(name).dump(-1, ' ', false, json::error_handler_t::replace));
}

Picture read_lock(const MountPoint& mount, const LockPath& lock) {
  const auto yaml = read_file(lock.path(mount));
  if (yaml && !yaml->empty()) {
    Picture picture = to_picture(yaml_to_json(*yaml));
    picture.lock = lock;  // Bytes of a name that are not UTF-8 do not come back.
    return picture;
  }
  if (!yaml && errno != ENOENT) {
    const int error = errno;
    fail_if_ended(mount, lock.shown(), error);
    throw Failure(exit_code_of(error), fmt::format("{}: {}", lock.shown(), std::strerror(error)));
  }
  need_lockspace(mount, lock.shown(), lock.lockspace);
  // A name that nobody holds has no file; somebody may wait for it all the same.
  const std::string name = as_told(lock.name());
  const json waits = yaml_to_json(read_info(mount, "waits"));
  for (const json& wait : list(waits, "waits")) {
    if (to_lock(wait).name() != name) continue;
    for (Picture& picture : read_locks(mount)) {
      if (picture.lock.name() != name) continue;
      picture.lock = lock;
      return std::move(picture);
    }
  }
  Picture picture = to_picture(free_lock(lock));
  picture.lock = lock;
  return picture;
}

pid_t pid_to_look_at(const Holder& holder) {
  return holder.exited && holder.opener != 0 ? holder.opener : holder.pid;
}

std::string pid_to_show(const Holder& holder) {
  const pid_t pid = pid_to_look_at(holder);
  return pid == 0 ? "" : std::to_string(pid);
}

std::string command_to_show(const Holder& holder) {
  if (!holder.exited) return printable(holder.comm);
  if (holder.opener != 0) return printable(holder.opener_comm);
  return printable(holder.comm) + (holder.comm.empty() ? "(exited)" : " (exited)");
}

std::string holder_to_look_at(const Holder& holder) {
  if (!holder.exited) return process_in_words(holder.pid, holder.comm);
  if (holder.opener != 0) return process_in_words(holder.opener, holder.opener_comm);
  return process_in_words(holder.pid, holder.comm) + ", which has exited";
}

std::string holders_in_words(const Picture& picture) {
  if (picture.holders.empty()) return "nobody";
  const Holder& first = picture.holders.front();
  std::string out = fmt::format("{} by {}", first.mode, holder_to_look_at(first));
  if (picture.holders_total > 1) out += fmt::format(", and {} more", picture.holders_total - 1);
  return out;
}

}  // namespace lockfs::ctl
