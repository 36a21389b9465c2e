// SPDX-License-Identifier: MIT
// The files of .lockfs.
#include <algorithm>

#include "fs/lock_fs.h"

#ifndef LOCKFS_VERSION
#error LOCKFS_VERSION comes from the build
#endif

namespace lockfs {
namespace {

std::string said(const std::string& words) { return words + "\n"; }

}  // namespace

std::string LockFs::info_text(NodeId node, const Client& reader) {
  const std::string& file = info_files().at(node - NodeTable::kFirstInfoFile);
  if (file == "version") return said(LOCKFS_VERSION);
  if (file == "config") return config_text();
  if (file == "traits") return traits_text();
  if (file == "locks.json") return locks_json(reader);
  return painter_.waits([&](const Lock& lock) { return may_read(reader, lock); });
}

std::string LockFs::config_text() const {
  nlohmann::ordered_json out;
  for (const auto& [key, value] : option_values(options_)) out[key] = value;
  return to_yaml(out);
}

std::string LockFs::traits_text() const {
  nlohmann::ordered_json out;
  for (const auto& [id, space] : table_.lockspaces()) {
    const LockTraits& traits = space->backend->traits();
    out[space->name] = {{"backend", traits.name},
                        {"shared_modes", traits.shared_modes},
                        {"fifo", traits.fifo},
                        {"contention_hints", traits.contention_hints},
                        {"slots", traits.slots},
                        {"other_nodes", traits.other_nodes},
                        {"sees_other_nodes", traits.sees_other_nodes},
                        {"max_name_bytes", traits.max_name_bytes}};
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string LockFs::locks_json(const Client& reader) {
  nlohmann::json locks = nlohmann::json::array();
  for (const auto& [id, space] : table_.lockspaces()) {
    for (const auto& [name, lock] : space->locks) {
      if ((lock.visible() || lock.waiters() != 0) && may_read(reader, lock))
        locks.push_back(painter_.as_json(lock));
    }
  }
  const nlohmann::json all = {{"locks", locks}};
  return all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace lockfs
