// SPDX-License-Identifier: MIT
#include "ctl/heirs.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "ctl/open_locks.h"
#include "ctl/process.h"

namespace lockfs::ctl {
namespace {

// Those who wait, by the lock that they have open as well.
std::map<std::string, std::vector<Blocker>> heirs_of(const MountPoint& mount,
                                                     const std::vector<Wait>& waits) {
  std::map<ino_t, dev_t> files;
  std::map<ino_t, std::string> names;
  for (const Wait& wait : waits) {
    struct stat file {};
    if (stat(wait.lock.path(mount).c_str(), &file) != 0) continue;
    files[file.st_ino] = file.st_dev;
    names[file.st_ino] = wait.lock.name();
  }
  std::map<std::string, std::vector<Blocker>> heirs;
  std::set<pid_t> seen;
  for (const Wait& wait : waits) {
    const pid_t pid = wait.who.pid;
    if (pid == 0 || comm_of(pid) != wait.who.comm || !seen.insert(pid).second) continue;
    for (const OpenLock& open : open_locks(pid, files).value_or(std::vector<OpenLock>())) {
      heirs[names[open.inode]].push_back({pid, wait.who.comm, open.mode, wait.who.mode});
    }
  }
  return heirs;
}

// Whether what it has open is what the wait is for: a holder's own mode. Its own wait may be for
// more than it holds; but only one can hold EX or PW.
bool blocks(const Blocker& heir, const Wait& wait) {
  bool of_holder = false;
  for (const Blocker& blocker : wait.blockers) {
    if (blocker.pid == heir.pid && blocker.holds != "none") return false;  // It is listed.
    of_holder = of_holder || blocker.holds == heir.holds;
  }
  const bool alone = heir.holds == "EX" || heir.holds == "PW";
  return of_holder && (alone || heir.pid != wait.who.pid);
}

void add(const Blocker& heir, Wait& wait) {
  wait.blockers.insert(wait.blockers.begin(), heir);
  const nlohmann::json raw = {{"pid", heir.pid},
                              {"comm", heir.comm},
                              {"holds", heir.holds},
                              {"wants", heir.wants},
                              {"inherited", true}};
  nlohmann::json& list = wait.raw["waits_for"];
  list.insert(list.begin(), raw);
}

void mark_circles(std::vector<Wait>& waits) {
  std::map<pid_t, std::set<pid_t>> waits_for;
  for (const Wait& wait : waits) {
    for (const Blocker& blocker : wait.blockers) waits_for[wait.who.pid].insert(blocker.pid);
  }
  waits_for.erase(0);  // Many, out of sight.
  for (Wait& wait : waits) {
    std::vector<pid_t> ways = {wait.who.pid};
    std::set<pid_t> reached;
    for (size_t i = 0; i < ways.size(); ++i) {
      for (const pid_t next : waits_for[ways[i]]) {
        if (reached.insert(next).second) ways.push_back(next);
      }
    }
    if (wait.who.pid == 0 || !reached.contains(wait.who.pid)) continue;
    wait.cycle = true;
    wait.raw["cycle"] = true;
  }
}

}  // namespace

void add_heirs(const MountPoint& mount, std::vector<Wait>& waits) {
  bool found = false;
  const auto heirs = heirs_of(mount, waits);
  for (Wait& wait : waits) {
    const auto of_lock = heirs.find(wait.lock.name());
    if (of_lock == heirs.end()) continue;
    for (const Blocker& heir : of_lock->second) {
      if (!blocks(heir, wait)) continue;
      add(heir, wait);
      found = true;
    }
  }
  if (found) mark_circles(waits);
}

}  // namespace lockfs::ctl
