// SPDX-License-Identifier: MIT
#include "backends/dlm/group.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace lockfs::dlm {
namespace {

// How soon it is tried again to enter a group, and to send when corosync is busy.
constexpr auto kEnterPause = std::chrono::seconds(1);
constexpr auto kSendPause = std::chrono::milliseconds(2);

std::vector<Member> list_of(const cpg_address* list, size_t count) {
  std::vector<Member> out;
  for (size_t i = 0; i < count; ++i) out.push_back({list[i].nodeid, list[i].pid});
  return out;
}

}  // namespace

void Groups::leave_all() {
  while (!groups_.empty()) leave(std::string(groups_.begin()->first));
}

void Groups::deliver(cpg_handle_t handle, const cpg_name* /*name*/, uint32_t node, uint32_t pid,
                     void* text, size_t size) {
  void* context = nullptr;
  if (cpg_context_get(handle, &context) != CS_OK) return;
  const Group& group = *static_cast<Group*>(context);
  group.groups->events_.heard(group.space, {node, pid},
                              std::string(static_cast<const char*>(text), size));
}

void Groups::changed(cpg_handle_t handle, const cpg_name* /*name*/, const cpg_address* members,
                     size_t member_count, const cpg_address* left, size_t left_count,
                     const cpg_address* joined, size_t joined_count) {
  void* context = nullptr;
  if (cpg_context_get(handle, &context) != CS_OK) return;
  const Group& group = *static_cast<Group*>(context);
  Membership now{
      list_of(members, member_count), list_of(joined, joined_count), list_of(left, left_count), {}};
  for (size_t i = 0; i < left_count; ++i) {
    if (left[i].reason == CPG_REASON_NODEDOWN) now.gone.push_back(now.left[i]);
  }
  group.groups->events_.members(group.space, now);
}

bool Groups::enter(Group& group) {
  cpg_model_v1_data_t model{};
  model.model = CPG_MODEL_V1;
  model.cpg_deliver_fn = deliver;
  model.cpg_confchg_fn = changed;
  cpg_handle_t handle = 0;
  auto* data = reinterpret_cast<cpg_model_data_t*>(&model);
  if (cpg_model_initialize(&handle, CPG_MODEL_V1, data, &group) != CS_OK) return false;
  const std::string full = "lockfs:" + group.space;
  cpg_name name{};
  name.length = static_cast<uint32_t>(std::min<size_t>(full.size(), sizeof name.value - 1));
  std::memcpy(name.value, full.data(), name.length);
  unsigned node = 0;
  if (cpg_fd_get(handle, &group.fd) != CS_OK || cpg_local_get(handle, &node) != CS_OK ||
      cpg_join(handle, &name) != CS_OK) {
    cpg_finalize(handle);
    return false;
  }
  self_ = {node, static_cast<uint32_t>(getpid())};
  group.handle = handle;
  loop_.watch(group.fd, [this, space = group.space] {
    Group& in = groups_.at(space);
    if (cpg_dispatch(in.handle, CS_DISPATCH_ALL) != CS_OK) cut_off(in);
    return false;
  });
  return true;
}

void Groups::cut_off(Group& group) {
  loop_.unwatch(group.fd);
  cpg_finalize(group.handle);
  group.handle = 0;
  group.unsent.clear();
  events_.members(group.space, {});
  join_later(group.space);
}

void Groups::join_later(const std::string& space) {
  loop_.timers.schedule(Clock::now() + kEnterPause, [this, space] {
    if (groups_.contains(space)) join(space);
  });
}

void Groups::join(const std::string& space) {
  Group& group = groups_[space];
  group.groups = this;
  group.space = space;
  if (group.handle == 0 && !enter(group)) join_later(space);
}

void Groups::leave(const std::string& space) {
  const auto found = groups_.find(space);
  if (found == groups_.end()) return;
  if (found->second.handle != 0) {
    loop_.unwatch(found->second.fd);
    cpg_finalize(found->second.handle);
  }
  groups_.erase(found);
}

void Groups::send(const std::string& space, std::string text) {
  const auto found = groups_.find(space);
  if (found == groups_.end() || found->second.handle == 0) return;
  found->second.unsent.push_back(std::move(text));
  if (found->second.unsent.size() == 1) flush(found->second);
}

void Groups::flush(Group& group) {
  while (!group.unsent.empty()) {
    std::string& text = group.unsent.front();
    iovec part{text.data(), text.size()};
    const cs_error_t result = cpg_mcast_joined(group.handle, CPG_TYPE_AGREED, &part, 1);
    if (result == CS_ERR_TRY_AGAIN) {
      loop_.timers.schedule(Clock::now() + kSendPause, [this, space = group.space] {
        const auto found = groups_.find(space);
        if (found != groups_.end() && found->second.handle != 0) flush(found->second);
      });
      return;
    }
    if (result != CS_OK && result != CS_ERR_INVALID_PARAM) return cut_off(group);
    group.unsent.pop_front();
  }
}

}  // namespace lockfs::dlm
