// SPDX-License-Identifier: MIT
#include "ctl/lock_list.h"

#include <fmt/format.h>
#include <pwd.h>
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <iostream>

#include "ctl/failure.h"
#include "ctl/output.h"
#include "ctl/process.h"
#include "ctl/table.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

using Before = std::function<bool(const Picture&, const Picture&)>;

const Holder& first_holder(const Picture& lock) {
  static const Holder nobody;
  return lock.holders.empty() ? nobody : lock.holders.front();
}

// Compares by what `key` makes of a lock's first holder; locks that nobody holds come last.
template <typename Key>
Before by_holder(Key key) {
  return [key](const Picture& a, const Picture& b) {
    if (a.holders.empty() != b.holders.empty()) return b.holders.empty();
    return key(first_holder(a)) < key(first_holder(b));
  };
}

struct Order {
  std::string key;
  Before before;
};

const std::vector<Order>& orders() {
  static const std::vector<Order> all = {
      {"name", [](const Picture& a, const Picture& b) { return a.lock.name() < b.lock.name(); }},
      {"mode", [](const Picture& a, const Picture& b) { return a.mode < b.mode; }},
      {"pid", by_holder([](const Holder& holder) { return holder.pid; })},
      {"user", by_holder([](const Holder& holder) { return user_name(holder.uid); })},
      {"command", by_holder([](const Holder& holder) { return holder.comm; })},
      {"container", by_holder([](const Holder& holder) { return holder.container; })},
      {"since", by_holder([](const Holder& holder) { return holder.since; })},
      {"waiters",
       [](const Picture& a, const Picture& b) { return a.waiters_total > b.waiters_total; }},
  };
  return all;
}

uid_t uid_of(const std::string& user) {
  if (const passwd* known = getpwnam(user.c_str()); known != nullptr) return known->pw_uid;
  uid_t uid = 0;
  const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), uid);
  if (error == std::errc() && end == user.data() + user.size()) return uid;
  throw Failure(ExitCode::kUsage, fmt::format("--user {}: no such user", printable(user)));
}

bool concerns(const Picture& lock, uid_t uid) {
  const auto is_theirs = [uid](const Party& party) { return party.uid == uid; };
  return std::any_of(lock.holders.begin(), lock.holders.end(), is_theirs) ||
         std::any_of(lock.waiters.begin(), lock.waiters.end(), is_theirs);
}

std::string host_name() {
  std::string name(256, '\0');
  gethostname(name.data(), name.size() - 1);
  return name.c_str();
}

std::vector<std::string> row_of(const Picture& lock, const Holder* holder) {
  const std::string waiters = std::to_string(lock.waiters_total);
  if (holder == nullptr) return {lock.lock.shown(), lock.mode, "", "", "", "", "", waiters};
  const bool elsewhere = !holder->host.empty() && holder->host != host_name();
  const std::string container = printable(holder->container);
  std::string place = container;
  if (elsewhere) place = printable(holder->host) + (container.empty() ? "" : " " + container);
  return {
      lock.lock.shown(),        holder->mode, pid_to_show(*holder),         user_name(holder->uid),
      command_to_show(*holder), place,        time_in_words(holder->since), waiters};
}

void print_table(const std::vector<Picture>& locks, bool headings) {
  Table table({{"NAME"},
               {"MODE"},
               {"PID", true},
               {"USER"},
               {"COMMAND"},
               {"CONTAINER"},
               {"SINCE"},
               {"WAITERS", true}});
  for (const Picture& lock : locks) {
    for (const Holder& holder : lock.holders) table.add(row_of(lock, &holder));
    if (lock.holders.empty()) table.add(row_of(lock, nullptr));
    if (lock.holders_total > lock.holders.size() && !lock.holders.empty()) {
      const size_t more = lock.holders_total - lock.holders.size();
      table.add({lock.lock.shown(), "", "", "", fmt::format("... {} more", more), "", "", ""});
    }
  }
  std::cout << table.text(Style::of(STDOUT_FILENO), headings);
}

}  // namespace

const std::vector<std::string>& sort_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> names;
    for (const Order& order : orders()) names.push_back(order.key);
    return names;
  }();
  return keys;
}

std::vector<Picture> chosen(std::vector<Picture> locks, const ListOptions& options) {
  const auto drop = [&](const auto& keeps) {
    std::erase_if(locks, [&](const Picture& lock) { return !keeps(lock); });
  };
  if (!options.lockspace.empty()) {
    drop([&](const Picture& lock) { return lock.lock.lockspace == as_told(options.lockspace); });
  }
  if (!options.all)
    drop([](const Picture& lock) { return lock.held() || lock.waiters_total != 0; });
  if (options.waiting) drop([](const Picture& lock) { return lock.waiters_total != 0; });
  if (options.mine) {
    const uid_t own = uid_outside(read_file("/proc/self/uid_map").value_or(""), getuid());
    drop([own](const Picture& lock) { return concerns(lock, own); });
  }
  if (!options.user.empty()) {
    drop([uid = uid_of(options.user)](const Picture& lock) { return concerns(lock, uid); });
  }
  if (!options.mode.empty()) {
    drop([&](const Picture& lock) {
      return strcasecmp(lock.mode.c_str(), options.mode.c_str()) == 0;
    });
  }
  for (const char* key : {"name", options.sort.c_str()}) {  // Equals stay by name.
    const auto order = std::find_if(orders().begin(), orders().end(),
                                    [&](const Order& known) { return known.key == key; });
    if (order != orders().end()) std::stable_sort(locks.begin(), locks.end(), order->before);
  }
  if (options.reverse) std::reverse(locks.begin(), locks.end());
  return locks;
}

ExitCode list_locks(const MountPoint& mount, const ListOptions& options) {
  if (!options.lockspace.empty()) need_lockspace(mount, "list", options.lockspace);
  const std::vector<Picture> locks = chosen(read_locks(mount), options);
  if (!options.json) {
    print_table(locks, !options.no_headings);
    return ExitCode::kOk;
  }
  nlohmann::json out = {{"locks", nlohmann::json::array()}};
  for (const Picture& lock : locks) out["locks"].push_back(lock.raw);
  print_json(out);
  return ExitCode::kOk;
}

}  // namespace lockfs::ctl
