// SPDX-License-Identifier: MIT
#include "ctl/show.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <set>

#include "ctl/output.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

using nlohmann::json;

std::string party_in_words(const Party& party) {
  std::string out = process_in_words(party.pid, party.comm);
  out += " of " + user_name(party.uid);
  if (!party.host.empty()) out += " on " + printable(party.host);
  if (!party.container.empty()) out += ", in container " + printable(party.container);
  return out;
}

std::string holder_in_words(const Holder& holder) {
  std::string out = holder.mode + "  " + party_in_words(holder);
  if (!holder.since.empty()) {
    out +=
        fmt::format(", since {} ({})", time_in_words(holder.since), duration_in_words(holder.held));
  }
  if (!holder.expires.empty()) out += ", until " + time_in_words(holder.expires);
  if (!holder.note.empty()) out += fmt::format(", note \"{}\"", printable(holder.note));
  if (holder.exited) {
    out += ", has exited";
    if (holder.opener != 0) {
      out += "; the file was opened by " + process_in_words(holder.opener, holder.opener_comm);
    }
  }
  if (holder.lingering) out += ", closed and kept for a while (linger=)";
  return out;
}

std::string waiter_in_words(const Waiter& waiter) {
  std::string out = fmt::format("{}  {}, waits for {}", waiter.mode, party_in_words(waiter),
                                duration_in_words(waiter.waiting));
  if (!waiter.deadline.empty()) out += ", until " + time_in_words(waiter.deadline);
  return out;
}

std::string stats_in_words(const Stats& stats) {
  std::string out = fmt::format("{} grant{}", stats.grants, plural(stats.grants));
  if (stats.contended != 0) {
    out += fmt::format(", {} after a wait (mean {}, longest {})", stats.contended,
                       duration_in_words(stats.wait_mean), duration_in_words(stats.wait_max));
  }
  if (stats.hold_max > 0) {
    out += fmt::format("; held {} in the mean, {} at most", duration_in_words(stats.hold_mean),
                       duration_in_words(stats.hold_max));
  }
  const auto add = [&](uint64_t count, const char* what) {
    if (count != 0) out += fmt::format("; {} {}", count, what);
  };
  add(stats.timeouts, "gave up in time");
  add(stats.deadlocks, "refused as deadlocks");
  add(stats.lost, "lost");
  return out;
}

// Whose processes could not be looked at, if it matters.
std::string blind_spot(const Descriptors& descriptors) {
  if (descriptors.unseen == 0) return {};
  return fmt::format(
      "{} process{} of other users cannot be seen{}: as root lockctl shows all that have it open.",
      descriptors.unseen, descriptors.unseen == 1 ? "" : "es",
      geteuid() == 0 ? " from in here" : ", you are not root");
}

void print_list(const Style& style, const std::string& heading, size_t total,
                const std::vector<std::string>& lines) {
  if (total == 0 && lines.empty()) return;
  std::cout << style.heading(heading) << "\n";
  for (const std::string& line : lines) std::cout << "  " << line << "\n";
  if (total > lines.size()) std::cout << "  and " << total - lines.size() << " more\n";
}

std::vector<std::string> descriptor_lines(const Descriptors& descriptors, const Style& style) {
  std::vector<std::string> lines;
  for (const Descriptor& descriptor : descriptors.all) {
    const std::string line =
        fmt::format("fd {}, {}: {}; {}", descriptor.fd, descriptor.mode, in_words(descriptor),
                    cut(printable(descriptor.command), 200));
    lines.push_back(descriptor.inherited && !descriptor.opened ? style.bad(line) : line);
  }
  return lines;
}

void print_picture(const Picture& picture, const Descriptors& descriptors) {
  const Style style = Style::of(STDOUT_FILENO);
  std::cout << style.heading(picture.lock.shown()) << ": "
            << (picture.held() ? "held " + picture.mode : "free");
  if (picture.pinned) std::cout << ", pinned";
  std::cout << ", token " << picture.token;
  if (!picture.backend.empty()) std::cout << ", backend " << printable(picture.backend);
  if (!picture.value_block.empty()) std::cout << ", its value block is " << picture.value_block;
  std::cout << "\n";
  if (!picture.elsewhere.empty()) {
    std::cout << style.bad("on other hosts: " + printable(picture.elsewhere)) << "\n";
  }
  std::vector<std::string> holders;
  for (const Holder& holder : picture.holders) holders.push_back(holder_in_words(holder));
  std::vector<std::string> waiters;
  for (const Waiter& waiter : picture.waiters) waiters.push_back(waiter_in_words(waiter));
  print_list(style, "Holders", picture.holders_total, holders);
  print_list(style, "Processes that have it open", 0, descriptor_lines(descriptors, style));
  print_list(style, "Waiters, in their turn", picture.waiters_total, waiters);
  std::cout << style.heading("So far") << "\n  " << stats_in_words(picture.stats) << "\n";
  std::cout << style.heading("Next") << "\n  " << advice(picture, descriptors) << "\n";
}

json as_json(const Picture& picture, const Descriptors& descriptors) {
  json out = picture.raw;
  out["descriptors"] = json::array();
  for (const Descriptor& descriptor : descriptors.all) {
    json origin;
    if (descriptor.inherited) {
      origin = {{"pid", descriptor.inherited->pid},
                {"comm", descriptor.inherited->comm},
                {"exited", descriptor.inherited->exited}};
    }
    out["descriptors"].push_back({{"pid", descriptor.pid},
                                  {"fd", descriptor.fd},
                                  {"mode", descriptor.mode},
                                  {"comm", descriptor.comm},
                                  {"command", descriptor.command},
                                  {"uid", descriptor.uid},
                                  {"opened", descriptor.opened},
                                  {"inherited_from", origin}});
  }
  out["unseen_processes"] = descriptors.unseen;
  return out;
}

// Has it exited and left its lock to children that do not know of it? Whoever opened the file for
// it does.
bool is_left_behind(const Holder& holder, const Descriptors& descriptors) {
  return holder.exited && std::none_of(descriptors.all.begin(), descriptors.all.end(),
                                       [&](const Descriptor& descriptor) {
                                         return descriptor.opened &&
                                                descriptor.pid == holder.opener;
                                       });
}

// Those that keep a lock whose holder has exited: they, or an ancestor of theirs, have it from that
// one. Of several shared ones it may not be known from which; if `all` have exited, from one of
// them.
std::vector<Descriptor> leaked(const Descriptors& descriptors, bool all) {
  std::set<size_t> descriptions;
  for (const Descriptor& descriptor : descriptors.all) {
    const auto& from = descriptor.inherited;
    const bool left = from && !descriptor.opened && (from->exited || (all && from->pid == 0));
    if (left) descriptions.insert(descriptor.description);
  }
  std::vector<Descriptor> out;
  for (const Descriptor& descriptor : descriptors.all) {
    if (descriptions.contains(descriptor.description)) out.push_back(descriptor);
  }
  return out;
}

std::string processes_in_words(const std::vector<Descriptor>& all) {
  std::string out;
  for (const Descriptor& one : all) {
    out += (out.empty() ? "" : " and ") + process_in_words(one.pid, one.comm);
  }
  return out;
}

// `lives`: another holder, if there is one.
std::string advice_on_leak(const Descriptors& descriptors, const Holder* lives) {
  const std::vector<Descriptor> keepers = leaked(descriptors, lives == nullptr);
  std::string out = lives == nullptr ? "Its holder has exited" : "A holder of it has exited";
  const std::string others =
      lives == nullptr ? "" : " Besides, wait for " + holder_to_look_at(*lives) + ".";
  if (keepers.empty()) {
    return out + ", but some process still has its descriptor open. " +
           (blind_spot(descriptors).empty() ? "It is out of sight, maybe in a container."
                                            : blind_spot(descriptors)) +
           others;
  }
  std::string pids;
  for (const Descriptor& keeper : keepers) pids += fmt::format(" {}", keeper.pid);
  return out +
         fmt::format(
             ", but {} still {} its descriptor open, so it is held. If that is not meant: kill{}, "
             "and start such a process without it (`command {}>&-` in a shell, `flock -o`, "
             "`lockctl run -o`).{}",
             processes_in_words(keepers), keepers.size() == 1 ? "has" : "have", pids,
             keepers.front().fd, others);
}

// Whom to wait for. The mount cannot see a process of another pid namespace; maybe we can.
std::string whom_to_wait_for(const Picture& picture, const Descriptors& descriptors) {
  const Holder& holder = picture.holders.front();
  if (pid_to_look_at(holder) == 0 && holder.host.empty() && !descriptors.all.empty()) {
    return processes_in_words(descriptors.all);
  }
  std::string out = holder_to_look_at(holder);
  if (picture.holders_total > 1) out += fmt::format(" and {} more", picture.holders_total - 1);
  return out;
}

}  // namespace

std::string advice(const Picture& picture, const Descriptors& descriptors) {
  const std::string name = picture.lock.shown();
  if (picture.holders.empty() && picture.waiters_total == 0) {
    return fmt::format("Nobody holds it. `lockctl run {} -- COMMAND` takes it.", name);
  }
  if (picture.holders.empty()) return "Nobody holds it here; who waits has its turn soon.";
  const Holder& holder = picture.holders.front();
  if (holder.lingering) {
    return fmt::format(
        "Its holder has closed it and may take it up again. Wait until it ends, or `lockctl break "
        "{} --why TEXT`.",
        name);
  }
  const auto lives =
      std::find_if(picture.holders.begin(), picture.holders.end(),
                   [&](const Holder& one) { return !is_left_behind(one, descriptors); });
  if (lives == picture.holders.end()) return advice_on_leak(descriptors, nullptr);
  const bool leaks =
      std::any_of(picture.holders.begin(), picture.holders.end(),
                  [&](const Holder& one) { return is_left_behind(one, descriptors); });
  if (leaks) return advice_on_leak(descriptors, &*lives);
  std::string out = fmt::format(
      "Wait for {}, end {}, or take it away: `lockctl break {} --why TEXT` (root or the owner of "
      "the "
      "lockspace).",
      whom_to_wait_for(picture, descriptors), picture.holders_total > 1 ? "them" : "it", name);
  const std::string unseen = descriptors.all.empty() ? blind_spot(descriptors) : "";
  return unseen.empty() ? out : out + " " + unseen;
}

ExitCode show_lock(const MountPoint& mount, const ShowOptions& options) {
  const Picture picture = read_lock(mount, parse_lock_path(mount, options.name));
  const Descriptors descriptors = descriptors_of(mount, picture);
  if (options.json) {
    print_json(as_json(picture, descriptors));
  } else {
    print_picture(picture, descriptors);
    const std::string unseen = descriptors.all.empty() ? "" : blind_spot(descriptors);
    if (!unseen.empty() && picture.held()) std::cout << "  " << unseen << "\n";
  }
  return picture.held() ? ExitCode::kOk : ExitCode::kNo;
}

}  // namespace lockfs::ctl
