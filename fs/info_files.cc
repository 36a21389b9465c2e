// SPDX-License-Identifier: MIT
// The files of .lockfs.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "backends/registry.h"
#include "fs/lock_fs.h"
#include "fs/metrics.h"

#ifndef LOCKFS_VERSION
#error LOCKFS_VERSION comes from the build
#endif

namespace lockfs {
namespace {

std::string said(const std::string& words) { return words + "\n"; }

}  // namespace

void LockFs::info_text(NodeId node, const Client& reader, const TextDone& done) {
  const std::string& file = info_files().at(node - NodeTable::kFirstInfoFile);
  if (file == "version") return done(said(LOCKFS_VERSION));
  if (file == "config") return done(config_text());
  if (file == "traits") return done(traits_text());
  if (file == "locks.json") return locks_json(reader, done);
  if (file == "metrics") return done(metrics_text(table_, handles_.size()));
  done(painter_.waits([&](const Lock& lock) { return may_read(reader, lock); }));
}

std::string LockFs::config_text() const {
  nlohmann::ordered_json out;
  for (const auto& [key, value] : option_values(options_)) out[key] = value;
  for (const auto& [id, space] : table_.lockspaces()) {
    const auto named = options_.lockspaces.find(space->name);
    const bool own = named != options_.lockspaces.end() && !named->second.backend.empty();
    out["lockspace"][space->name] = {
        {"backend", shown_url(own ? named->second.backend : options_.source)},
        {"mode", fmt::format("{:04o}", space->mode & 07777U)},
        {"capacity", space->capacity}};
  }
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
                        {"keeps_pins", traits.keeps_pins},
                        {"value_block", traits.value_block},
                        {"max_name_bytes", traits.max_name_bytes},
                        {"max_lockspace_bytes", traits.max_lockspace_bytes}};
    for (const auto& [key, words] : space->backend->status()) {
      out[space->name]["status"][key] = words;
    }
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Asks about all lockspaces at once; the last answer makes the text.
void LockFs::locks_json(const Client& reader, const TextDone& done) {
  struct Asked {
    size_t left = 0;
    nlohmann::json locks = nlohmann::json::array();
  };
  const auto asked = std::make_shared<Asked>();
  asked->left = table_.lockspaces().size();
  std::vector<uint32_t> ids;
  for (const auto& [id, space] : table_.lockspaces()) ids.push_back(id);
  for (const uint32_t id : ids) {
    table_.look_all(*table_.find_lockspace(id), [=, this](LockErrc result,
                                                          const std::vector<RemoteLock>& remote) {
      Lockspace* space = table_.find_lockspace(id);
      if (space != nullptr) add_locks_json(*space, reader, result, remote, asked->locks);
      if (--asked->left != 0) return;
      const nlohmann::json all = {{"locks", asked->locks}};
      done(all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    });
  }
}

void LockFs::add_locks_json(Lockspace& space, const Client& reader, LockErrc result,
                            const std::vector<RemoteLock>& remote, nlohmann::json& locks) {
  std::unordered_map<std::string_view, const RemoteLock*> elsewhere;
  for (const RemoteLock& lock : remote) elsewhere[lock.name] = &lock;
  const RemoteLock nothing;
  for (const auto& [name, lock] : space.locks) {
    const auto known = elsewhere.extract(name);
    const RemoteLock& other = known ? *known.mapped() : nothing;
    if (!(lock.visible() || lock.waiters() != 0 || other.held()) || !may_read(reader, lock)) {
      continue;
    }
    locks.push_back(painter_.as_json(space, name, &lock, {result, other}));
  }
  if (!may_read(reader, space)) return;
  for (const auto& [name, other] : elsewhere) {
    if (other->held()) locks.push_back(painter_.as_json(space, name, nullptr, {result, *other}));
  }
}

}  // namespace lockfs
