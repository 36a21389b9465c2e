// SPDX-License-Identifier: MIT
// The files of .lockfs.
#include <fmt/format.h>
#include <fmt/ranges.h>

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

void LockFs::info_text(NodeId node, fuse_req_t req, const TextDone& done) {
  const std::string& file = info_files().at(node - NodeTable::kFirstInfoFile);
  if (file == "version") return done(said(LOCKFS_VERSION));
  if (file == "config") return done(config_text());
  if (file == "traits") return done(traits_text());
  if (file == "metrics") return done(metrics_text(table_, handles_.size()));
  const Reader reader = reader_of(req);
  const auto make = [&]() { return file == "waits" ? wait_text(reader) : lock_text(reader); };
  long_texts_.make(fmt::format("{} {} {} {}", file, reader.client.uid, reader.client.gid,
                               fmt::join(reader.groups, ",")),
                   make, done);
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
                        {"strict_turns", traits.strict_turns},
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

}  // namespace lockfs
