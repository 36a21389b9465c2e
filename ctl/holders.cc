// SPDX-License-Identifier: MIT
#include "ctl/holders.h"

#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>

#include "ctl/open_locks.h"
#include "ctl/process.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

// kcmp(2) has an order of descriptions: 0 for the same one, 1 and 2 for before and behind. A
// container may forbid it.
long compare(const Descriptor& a, const Descriptor& b) {
  return syscall(SYS_kcmp, a.pid, b.pid, KCMP_FILE, a.fd, b.fd);
}

bool can_compare() {
  Descriptor self;
  self.pid = getpid();
  self.fd = STDERR_FILENO;
  return compare(self, self) == 0 || errno == EBADF;
}

// By a search among those that are known, each in its place. Where one of them has ended meanwhile
// there is no order, and all are looked at.
void find_same(std::vector<Descriptor>& all) {
  std::vector<const Descriptor*> known;
  for (auto one = all.begin(); one != all.end(); ++one) {
    bool sure = true;
    const auto at = std::partition_point(known.begin(), known.end(), [&](const Descriptor* other) {
      const long order = compare(*other, *one);
      sure = sure && order >= 0;
      return order == 1;
    });
    const auto is_same = [&](const Descriptor& other) { return compare(other, *one) == 0; };
    const auto same = sure ? one : std::find_if(all.begin(), one, is_same);
    if (same != one) {
      one->description = same->description;
    } else if (at != known.end() && is_same(**at)) {
      one->description = (*at)->description;
    } else if (sure) {
      known.insert(at, &*one);
    }
  }
}

bool is_below(pid_t pid, pid_t ancestor) {
  while (pid > 0 && pid != ancestor) pid = parent_of(pid);
  return pid == ancestor;
}

// Without kcmp: only one can hold EX or PW, and a child has a number from its ancestor.
bool is_likely_same(const Descriptor& a, const Descriptor& b) {
  if (a.mode != b.mode) return false;
  if (a.mode == "EX" || a.mode == "PW") return true;
  return a.fd == b.fd && (is_below(a.pid, b.pid) || is_below(b.pid, a.pid));
}

void guess_same(std::vector<Descriptor>& all) {
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t other = 0; other < i; ++other) {
      const size_t joined = all[other].description;
      if (joined == all[i].description || !is_likely_same(all[other], all[i])) continue;
      for (Descriptor& descriptor : all) {
        if (descriptor.description == joined) descriptor.description = all[i].description;
      }
    }
  }
}

void add_process(pid_t pid, const struct stat& lock, Descriptors& found) {
  const auto open = open_locks(pid, {{lock.st_ino, lock.st_dev}});
  if (!open) ++found.unseen;
  for (const OpenLock& one : open.value_or(std::vector<OpenLock>())) {
    found.all.push_back({pid, one.fd, one.mode, found.all.size(), comm_of(pid), command_of(pid),
                         user_of(pid).value_or(0), std::nullopt});
  }
}

using Group = std::vector<Descriptor*>;

const Descriptor* of_process(const Group& group, pid_t pid) {
  for (const Descriptor* descriptor : group) {
    if (descriptor->pid == pid) return descriptor;
  }
  return nullptr;
}

// The nearest ancestor that has the description too.
const Descriptor* nearest_ancestor(const Group& group, pid_t pid) {
  for (pid_t parent = parent_of(pid); parent > 0; parent = parent_of(parent)) {
    if (const Descriptor* found = of_process(group, parent)) return found;
  }
  return nullptr;
}

// A pid of the picture may be that of another process here: its name must be right as well.
bool is_of(const Descriptor& descriptor, const Holder& holder) {
  return descriptor.pid == holder.pid && descriptor.comm == holder.comm;
}

// Whose lock a description is: the holder that has it open. Else one whom no other description
// belongs to: it has exited, or lives out of our sight. Else one of that pid, whatever its name: it
// may have become another program since.
const Holder* holder_of(const Group& group, const std::vector<Holder>& holders,
                        const Descriptors& found) {
  const auto has = [&](const Holder& holder) {
    return std::any_of(group.begin(), group.end(),
                       [&](const Descriptor* descriptor) { return is_of(*descriptor, holder); });
  };
  const auto own = std::find_if(holders.begin(), holders.end(), has);
  if (own != holders.end()) return &*own;
  std::vector<const Holder*> others;
  for (const Holder& holder : holders) {
    const bool seen = std::any_of(found.all.begin(), found.all.end(),
                                  [&](const Descriptor& d) { return is_of(d, holder); });
    if (!seen && holder.mode == group.front()->mode) others.push_back(&holder);
  }
  if (others.size() == 1) return others.front();
  const auto by_pid = std::find_if(others.begin(), others.end(), [&](const Holder* holder) {
    return of_process(group, holder->pid) != nullptr;
  });
  return by_pid == others.end() ? nullptr : *by_pid;
}

// Who took it. Where pids are those of another pid namespace, the topmost process of that name.
const Descriptor* taker_of(const Group& group, const Holder& holder) {
  for (const Descriptor* descriptor : group) {
    if (is_of(*descriptor, holder)) return descriptor;
  }
  for (const Descriptor* descriptor : group) {
    const bool topmost = nearest_ancestor(group, descriptor->pid) == nullptr;
    if (topmost && !holder.exited && descriptor->comm == holder.comm) return descriptor;
  }
  return holder.exited ? nullptr : of_process(group, holder.pid);
}

void name_origins(const Group& group, const Holder* holder) {
  const Descriptor* taker = holder != nullptr ? taker_of(group, *holder) : nullptr;
  for (Descriptor* descriptor : group) {
    if (taker != nullptr && descriptor->pid == taker->pid) continue;
    descriptor->opened = holder != nullptr && holder->exited && holder->opener == descriptor->pid;
    const Descriptor* ancestor = nearest_ancestor(group, descriptor->pid);
    if (ancestor == nullptr) ancestor = taker;
    Descriptor::Origin origin;
    if (ancestor != nullptr) {
      origin = {ancestor->pid, ancestor->comm, false};
    } else if (holder != nullptr) {
      origin = {holder->pid, holder->comm, holder->exited};
    }
    descriptor->inherited = origin;
  }
}

}  // namespace

Descriptors descriptors_of(const MountPoint& mount, const Picture& picture) {
  Descriptors found;
  struct stat lock {};
  if (stat(picture.lock.path(mount).c_str(), &lock) != 0) return found;
  for (const pid_t pid : processes()) add_process(pid, lock, found);
  if (can_compare()) {
    find_same(found.all);
  } else {
    guess_same(found.all);
  }
  std::map<size_t, Group> groups;
  for (Descriptor& descriptor : found.all) groups[descriptor.description].push_back(&descriptor);
  for (const auto& [number, group] : groups) {
    name_origins(group, holder_of(group, picture.holders, found));
  }
  return found;
}

std::string in_words(const Descriptor& descriptor) {
  const std::string who = process_in_words(descriptor.pid, descriptor.comm);
  if (!descriptor.inherited) return who + " took it";
  const Descriptor::Origin& from = *descriptor.inherited;
  if (descriptor.opened) {
    return fmt::format("{} opened it, and {}, which has exited, took the lock", who,
                       process_in_words(from.pid, from.comm));
  }
  if (from.pid == 0) return who + " has it from a process that is not to be seen";
  return fmt::format("{} inherited it from {}{}", who, process_in_words(from.pid, from.comm),
                     from.exited ? ", which has exited" : "");
}

}  // namespace lockfs::ctl
