// SPDX-License-Identifier: MIT
#pragma once
#include <corosync/corotypes.h>
#include <corosync/cpg.h>

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"

namespace lockfs::dlm {

/// A mount of the cluster.
struct Member {
  uint32_t node = 0;  ///< As corosync numbers them.
  uint32_t pid = 0;
  auto operator<=>(const Member&) const = default;
};

/// A change of a group's members.
struct Membership {
  std::vector<Member> all;  ///< From now on. None at all: we are cut off from corosync.
  std::vector<Member> joined;
  std::vector<Member> left;
  std::vector<Member> gone;  ///< Of those that left: with their nodes, which may be cut off only.
};

/// What the mounts that have a lockspace in common say to each other. All hear the same messages
/// and changes of membership in the same order, their own messages too.
class GroupEvents {
 public:
  virtual ~GroupEvents() = default;
  virtual void heard(const std::string& space, Member from, const std::string& text) = 0;
  /// The members from now on.
  virtual void members(const std::string& space, const Membership& now) = 0;
};

/// The groups of this mount: one a lockspace, a closed process group of corosync (CPG). A call
/// waits for the corosync of this host, so all of this lives on one thread of its own, on that
/// thread's loop; the events come on it too.
class Groups {
 public:
  Groups(EventLoop& loop, GroupEvents& events) : loop_(loop), events_(events) {}
  /// After leave_all() only.
  ~Groups() = default;
  Groups(const Groups&) = delete;
  Groups& operator=(const Groups&) = delete;

  /// This mount, as the others name it. Of the last group that was joined.
  Member self() const { return self_; }
  /// Tries again until it is in.
  void join(const std::string& space);
  void leave(const std::string& space);
  void leave_all();
  /// To all members in order; lost where we are not in the group.
  void send(const std::string& space, std::string text);

 private:
  struct Group {
    Groups* groups = nullptr;
    std::string space;
    cpg_handle_t handle = 0;  ///< 0: not in.
    int fd = -1;
    std::deque<std::string> unsent;  ///< corosync asked us to wait.
  };
  static void deliver(cpg_handle_t handle, const cpg_name* name, uint32_t node, uint32_t pid,
                      void* text, size_t size);
  static void changed(cpg_handle_t handle, const cpg_name* name, const cpg_address* members,
                      size_t member_count, const cpg_address* left, size_t left_count,
                      const cpg_address* joined, size_t joined_count);
  bool enter(Group& group);
  void cut_off(Group& group);
  void join_later(const std::string& space);
  void flush(Group& group);

  EventLoop& loop_;
  GroupEvents& events_;
  Member self_;
  std::map<std::string, Group> groups_;
};

}  // namespace lockfs::dlm
