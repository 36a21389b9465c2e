// SPDX-License-Identifier: MIT
#include "ctl/waits_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <optional>
#include <set>

#include "ctl/heirs.h"
#include "ctl/output.h"

namespace lockfs::ctl {
namespace {

using nlohmann::json;

Wait to_wait(const json& raw) {
  Wait wait{to_lock(raw), to_waiter(raw), raw.value("cycle", false), {}, raw};
  for (const json& blocker : raw.value("waits_for", json::array())) {
    wait.blockers.push_back({blocker.value("pid", 0), blocker.value("comm", ""),
                             blocker.value("holds", "none"), blocker.value("wants", "none")});
  }
  std::stable_partition(wait.blockers.begin(), wait.blockers.end(),
                        [](const Blocker& blocker) { return blocker.holds != "none"; });
  return wait;
}

// Who waits or is waited for. The mount gives the pid 0 to whom it cannot see: such a one is known
// by the one lock alone that it holds, or that it waits for.
struct Node {
  std::string id;  ///< As dot(1) takes it.
  std::string name;
};

Node node_of(pid_t pid, const std::string& comm, const std::string& role) {
  if (pid != 0) return {std::to_string(pid), process_in_words(pid, comm)};
  return {in_quotes(role), process_in_words(pid, comm)};
}

Node waiter_of(const std::vector<Wait>& waits, const Wait& wait) {
  return node_of(wait.who.pid, wait.who.comm, fmt::format("wait {}", &wait - waits.data()));
}

Node blocker_of(const Wait& wait, const Blocker& blocker) {
  const bool holds = blocker.holds != "none";
  const std::string role = (holds ? "the holder of " : "a waiter for ") + wait.lock.shown();
  Node node = node_of(blocker.pid, blocker.comm, role);
  if (blocker.pid == 0) node.name += ", " + role;
  return node;
}

Node first_blocker_of(const Wait& wait) {
  if (!wait.blockers.empty()) return blocker_of(wait, wait.blockers.front());
  return {"elsewhere", "somebody on another host"};
}

// Draws the trees. A waiter stands below the first process that blocks it; the others are in
// --json and --dot.
class Tree {
 public:
  Tree(const std::vector<Wait>& waits, const Style& style) : waits_(waits), style_(style) {
    for (const Wait& wait : waits) {
      const Node waiter = waiter_of(waits, wait);
      const Node first = first_blocker_of(wait);
      waiting_.insert(waiter.id);
      blocked_[first.id].push_back(&wait);
      names_.emplace(first.id, first.name);
      names_.emplace(waiter.id, waiter.name);
    }
  }

  std::string text() {
    for (const Wait& wait : waits_) {
      const std::string first = first_blocker_of(wait).id;
      if (!waiting_.contains(first)) root(first);
    }
    for (const Wait& wait : waits_) {  // What is left goes round in circles.
      if (!drawn_.contains(&wait)) root(waiter_of(waits_, wait).id);
    }
    return out_;
  }

 private:
  void root(const std::string& node) {
    if (!roots_.insert(node).second) return;
    out_ += style_.heading(names_[node]) + "\n";
    path_ = {node};
    below(node, "");
  }

  void below(const std::string& node, const std::string& indent) {
    const auto found = blocked_.find(node);
    if (found == blocked_.end()) return;
    for (const Wait* wait : found->second) {
      const std::string waiter = waiter_of(waits_, *wait).id;
      const bool last = wait == found->second.back();
      const bool again = std::find(path_.begin(), path_.end(), waiter) != path_.end();
      out_ += indent + (last ? "└─ " : "├─ ") + line(*wait, again) + "\n";
      if (!drawn_.insert(wait).second || again) continue;
      path_.push_back(waiter);
      below(waiter, indent + (last ? "   " : "│  "));
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
  std::map<std::string, std::vector<const Wait*>> blocked_;  ///< By the id of whom.
  std::map<std::string, std::string> names_;
  std::set<std::string> waiting_;
  std::set<std::string> roots_;
  std::set<const Wait*> drawn_;
  std::vector<std::string> path_;
  std::string out_;
};

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
  const std::string name = as_told(lock.name());
  for (bool grows = true; grows;) {
    grows = false;
    for (const Wait& wait : waits) {
      const auto linked = [&](pid_t pid) { return pid != 0 && pids.contains(pid); };
      const bool touches = wait.lock.name() == name || linked(wait.who.pid) ||
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
  std::map<std::string, std::string> names;
  std::string arrows;
  for (const Wait& wait : waits) {
    const Node from = waiter_of(waits, wait);
    names.emplace(from.id, from.name);
    for (const Blocker& blocker : wait.blockers) {
      const Node to = blocker_of(wait, blocker);
      names.emplace(to.id, to.name);
      arrows += fmt::format("  {} -> {} [label={}{}];\n", from.id, to.id,
                            in_quotes(wait.lock.shown() + " " + printable(wait.who.mode)),
                            wait.cycle ? ", color=red, fontcolor=red" : "");
    }
  }
  std::string out = "digraph waits {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const auto& [id, name] : names) {
    out += fmt::format("  {} [label={}];\n", id, in_quotes(name));
  }
  return out + arrows + "}\n";
}

ExitCode show_waits(const MountPoint& mount, const WaitsOptions& options) {
  std::vector<Wait> waits = to_waits(yaml_to_json(read_info(mount, "waits")));
  name_the_exited(mount, waits);
  add_heirs(mount, waits);
  if (!options.name.empty()) {
    const LockPath lock = parse_lock_path(mount, options.name);
    need_lockspace(mount, lock.shown(), lock.lockspace);
    waits = about(waits, lock);
  }
  if (options.json) {
    json out = {{"waits", json::array()}};
    for (const Wait& wait : waits) out["waits"].push_back(wait.raw);
    print_json(out);
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
