// SPDX-License-Identifier: MIT
// The files of .lockfs.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <unordered_map>

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
  if (file == "locks.json") return locks_json(reader_of(req), done);
  if (file == "metrics") return done(metrics_text(table_, handles_.size()));
  const Reader reader = reader_of(req);
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

// A text of all locks, as far as it is.
struct LockFs::Listing {
  struct Space {
    LockErrc result = LockErrc::kOk;
    std::unordered_map<std::string, RemoteLock> elsewhere;
  };
  Reader reader;
  TextDone done;
  size_t asked = 0;  ///< Lockspaces that have not answered yet.
  std::map<uint32_t, Space> spaces;
  std::vector<std::pair<uint32_t, std::string>> left;  ///< Lockspace and name.
  std::string text = "{\"locks\": [";
};

// Asks about all lockspaces at once; after the last answer the text is made.
void LockFs::locks_json(const Reader& reader, const TextDone& done) {
  const auto listing = std::make_shared<Listing>();
  listing->reader = reader;
  listing->done = done;
  listing->asked = table_.lockspaces().size();
  std::vector<uint32_t> ids;
  for (const auto& [id, space] : table_.lockspaces()) ids.push_back(id);
  for (const uint32_t id : ids) {
    table_.look_all(*table_.find_lockspace(id),
                    [=, this](LockErrc result, const std::vector<RemoteLock>& remote) {
                      const Lockspace* space = table_.find_lockspace(id);
                      if (space != nullptr) note_names(*listing, *space, result, remote);
                      if (--listing->asked == 0) go_on_listing(listing);
                    });
  }
}

void LockFs::note_names(Listing& listing, const Lockspace& space, LockErrc result,
                        const std::vector<RemoteLock>& remote) {
  Listing::Space& noted = listing.spaces[space.id];
  noted.result = result;
  for (const RemoteLock& lock : remote) {
    if (!lock.held()) continue;
    noted.elsewhere[lock.name] = lock;
    listing.left.emplace_back(space.id, lock.name);
  }
  for (const auto& [name, lock] : space.locks) {
    const bool shown = lock.visible() || lock.waiters() != 0;
    if (shown && !noted.elsewhere.contains(name)) listing.left.emplace_back(space.id, name);
  }
}

// A while at a time, with requests in between: each lock is shown as it is at its turn.
void LockFs::go_on_listing(const std::shared_ptr<Listing>& listing) {
  constexpr auto kWhile = std::chrono::microseconds(200);
  const TimePoint end = Clock::now() + kWhile;
  for (; !listing->left.empty(); listing->left.pop_back()) {
    if (Clock::now() >= end) {
      // What is due now is all done before the next request.
      loop_.timers.schedule(loop_.timers.now() + std::chrono::nanoseconds(1),
                            [=, this] { go_on_listing(listing); });
      return;
    }
    const auto& [id, name] = listing->left.back();
    if (Lockspace* space = table_.find_lockspace(id)) list_lock(*listing, *space, name);
  }
  listing->text += "\n]}\n";
  listing->done(std::move(listing->text));
}

void LockFs::list_lock(Listing& listing, const Lockspace& space, const std::string& name) {
  static const RemoteLock nothing;
  const Listing::Space& noted = listing.spaces[space.id];
  const auto elsewhere = noted.elsewhere.find(name);
  const RemoteLock& remote = elsewhere != noted.elsewhere.end() ? elsewhere->second : nothing;
  const auto here = space.locks.find(name);
  const Lock* lock = here != space.locks.end() ? &here->second : nullptr;
  const bool local = lock != nullptr && (lock->visible() || lock->waiters() != 0);
  if (!local && !remote.held()) return;
  if (lock != nullptr ? !may_read(listing.reader, *lock) : !may_read(listing.reader, space)) return;
  listing.text += listing.text.ends_with('[') ? "\n" : ",\n";
  listing.text += painter_.as_json(space, name, lock, {noted.result, remote});
}

}  // namespace lockfs
