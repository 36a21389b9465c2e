// SPDX-License-Identifier: MIT
#include "ctl/waits_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <optional>
#include <set>

namespace lockfs::ctl {
namespace {

using nlohmann::json;

Wait to_wait(const json& raw) {
  // A wait has a waiter's keys.
  const json as_lock = {{"lockspace", raw.value("lockspace", "")},
                        {"lock", raw.value("lock", "")},
                        {"waiters", json::array({raw})}};
  const Picture picture = to_picture(as_lock);
  Wait wait{picture.lock, picture.waiters.front(), raw.value("cycle", false), {}, raw};
  for (const json& blocker : raw.value("waits_for", json::array())) {
    wait.blockers.push_back({blocker.value("pid", 0), blocker.value("comm", ""),
                             blocker.value("holds", "none"), blocker.value("wants", "none")});
  }
  std::stable_partition(wait.blockers.begin(), wait.blockers.end(),
                        [](const Blocker& blocker) { return blocker.holds != "none"; });
  return wait;
}

// Draws the trees. A waiter stands below the first process that blocks it; the others are in
// --json and --dot.
class Tree {
 public:
  Tree(const std::vector<Wait>& waits, const Style& style) : waits_(waits), style_(style) {
    for (const Wait& wait : waits) {
      waiting_.insert(wait.who.pid);
      const Blocker nobody{0, "somebody on another host", "none", "none"};
      const Blocker& first = wait.blockers.empty() ? nobody : wait.blockers.front();
      blocked_[first.pid].push_back(&wait);
      names_.emplace(first.pid, first.comm);
      names_.emplace(wait.who.pid, wait.who.comm);
    }
  }

  std::string text() {
    for (const Wait& wait : waits_) {
      const pid_t first = wait.blockers.empty() ? 0 : wait.blockers.front().pid;
      if (!waiting_.contains(first)) root(first);
    }
    for (const Wait& wait : waits_) {  // What is left goes round in circles.
      if (!drawn_.contains(&wait)) root(wait.who.pid);
    }
    return out_;
  }

 private:
  void root(pid_t pid) {
    if (!roots_.insert(pid).second) return;
    const std::string name = pid == 0 ? names_[pid] : process_in_words(pid, names_[pid]);
    out_ += style_.heading(name) + "\n";
    path_ = {pid};
    below(pid, "");
  }

  void below(pid_t pid, const std::string& indent) {
    const auto found = blocked_.find(pid);
    if (found == blocked_.end()) return;
    for (const Wait* wait : found->second) {
      const bool last = wait == found->second.back();
      const bool again = std::find(path_.begin(), path_.end(), wait->who.pid) != path_.end();
      out_ += indent + (last ? "└─ " : "├─ ") + line(*wait, again) + "\n";
      if (!drawn_.insert(wait).second || again) continue;
      path_.push_back(wait->who.pid);
      below(wait->who.pid, indent + (last ? "   " : "│  "));
      path_.pop_back();
    }
  }

  std::string line(const Wait& wait, bool again) const {
    std::string out =
        fmt::format("{} waits for {} ({}), {}", process_in_words(wait.who.pid, wait.who.comm),
                    wait.lock.shown(), wait.who.mode, duration_in_words(wait.who.waiting));
    if (!wait.blockers.empty()) {
      const Blocker& blocker = wait.blockers.front();
      out += blocker.holds != "none" ? ", held " + blocker.holds
                                     : ", behind its wish for " + blocker.wants;
    }
    if (wait.blockers.size() > 1) out += fmt::format(", and by {} more", wait.blockers.size() - 1);
    if (again) out += " (see above)";
    return wait.cycle ? style_.bad(out + " DEADLOCK") : out;
  }

  const std::vector<Wait>& waits_;
  const Style& style_;
  std::map<pid_t, std::vector<const Wait*>> blocked_;  ///< By whom.
  std::map<pid_t, std::string> names_;
  std::set<pid_t> waiting_;
  std::set<pid_t> roots_;
  std::set<const Wait*> drawn_;
  std::vector<pid_t> path_;
  std::string out_;
};

std::string dot_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::map<pid_t, Holder> exited_holders(const MountPoint& mount) {
  std::map<pid_t, Holder> exited;
  for (const Picture& lock : read_locks(mount)) {
    for (const Holder& holder : lock.holders) {
      if (holder.exited) exited[holder.pid] = holder;
    }
  }
  return exited;
}

// A holder that has exited has no name any more: whoever opened the file stands for it.
void name_the_exited(const MountPoint& mount, std::vector<Wait>& waits) {
  std::optional<std::map<pid_t, Holder>> exited;
  for (Wait& wait : waits) {
    for (Blocker& blocker : wait.blockers) {
      if (!blocker.comm.empty()) continue;
      if (!exited) exited = exited_holders(mount);
      const auto found = exited->find(blocker.pid);
      if (found == exited->end()) continue;
      const Holder& holder = found->second;
      blocker.pid = pid_to_look_at(holder);
      blocker.comm = holder.opener != 0 ? holder.opener_comm : "exited";
    }
  }
}

}  // namespace

std::vector<Wait> to_waits(const json& raw) {
  std::vector<Wait> waits;
  if (!raw.is_object()) return waits;
  for (const json& wait : raw.value("waits", json::array())) waits.push_back(to_wait(wait));
  return waits;
}

std::vector<Wait> about(const std::vector<Wait>& waits, const LockPath& lock) {
  std::set<const Wait*> in;
  std::set<pid_t> pids;
  for (bool grows = true; grows;) {
    grows = false;
    for (const Wait& wait : waits) {
      const auto linked = [&](pid_t pid) { return pid != 0 && pids.contains(pid); };
      const bool touches = wait.lock.name() == lock.name() || linked(wait.who.pid) ||
                           std::any_of(wait.blockers.begin(), wait.blockers.end(),
                                       [&](const Blocker& blocker) { return linked(blocker.pid); });
      if (!touches || !in.insert(&wait).second) continue;
      pids.insert(wait.who.pid);
      for (const Blocker& blocker : wait.blockers) pids.insert(blocker.pid);
      grows = true;
    }
  }
  std::vector<Wait> out;
  for (const Wait& wait : waits) {
    if (in.contains(&wait)) out.push_back(wait);
  }
  return out;
}

std::string waits_as_tree(const std::vector<Wait>& waits, const Style& style) {
  return Tree(waits, style).text();
}

std::string waits_as_dot(const std::vector<Wait>& waits) {
  std::map<pid_t, std::string> names;
  std::string arrows;
  for (const Wait& wait : waits) {
    names.emplace(wait.who.pid, wait.who.comm);
    for (const Blocker& blocker : wait.blockers) {
      names.emplace(blocker.pid, blocker.comm);
      arrows += fmt::format("  {} -> {} [label={}{}];\n", wait.who.pid, blocker.pid,
                            dot_string(wait.lock.name() + " " + wait.who.mode),
                            wait.cycle ? ", color=red, fontcolor=red" : "");
    }
  }
  std::string out = "digraph waits {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const auto& [pid, comm] : names) {
    out += fmt::format("  {} [label={}];\n", pid, dot_string(process_in_words(pid, comm)));
  }
  return out + arrows + "}\n";
}

ExitCode show_waits(const MountPoint& mount, const WaitsOptions& options) {
  std::vector<Wait> waits = to_waits(yaml_to_json(read_info(mount, "waits")));
  name_the_exited(mount, waits);
  if (!options.name.empty()) waits = about(waits, parse_lock_path(mount, options.name));
  if (options.json) {
    json out = {{"waits", json::array()}};
    for (const Wait& wait : waits) out["waits"].push_back(wait.raw);
    std::cout << out.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
  } else if (options.dot) {
    std::cout << waits_as_dot(waits);
  } else if (waits.empty()) {
    std::cout << "nobody waits\n";
  } else {
    std::cout << waits_as_tree(waits, Style::of(STDOUT_FILENO));
  }
  return ExitCode::kOk;
}

}  // namespace lockfs::ctl
