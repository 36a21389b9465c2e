// SPDX-License-Identifier: MIT
#include "backends/redis/mirror.h"

#include <utility>

#include "backends/key_values.h"

namespace lockfs::redis {
namespace {

constexpr size_t kPartsOfClaim = 4;

}  // namespace

bool Mirror::knows(std::string_view lockspace) const {
  const auto found = spaces_.find(lockspace);
  return found != spaces_.end() && found->second.loaded;
}

void Mirror::load(std::string_view lockspace, uint64_t version, const Parts& texts) {
  const auto found = spaces_.find(lockspace);
  if (found == spaces_.end()) return;
  found->second.version = version;
  for (const std::string_view text : texts) set(found->second, split_parts(text));
}

void Mirror::loaded(std::string_view lockspace) {
  const auto found = spaces_.find(lockspace);
  if (found == spaces_.end()) return;
  found->second.loaded = true;
  for (const auto& message : std::exchange(found->second.early, {})) {
    shown(Parts(message.begin(), message.end()));
  }
}

void Mirror::shown(const Parts& message) {
  if (message.size() < 3) return;
  const auto found = spaces_.find(message[1].substr(0, message[1].find('/')));
  if (found == spaces_.end()) return;
  Space& space = found->second;
  if (!space.loaded) {
    space.early.emplace_back(message.begin(), message.end());
    return;
  }
  const uint64_t version = number_in<uint64_t>(message.front());
  if (version <= space.version) return;
  space.version = version;
  set(space, Parts(message.begin() + 1, message.end()));
}

// PLACE PIN [NODE HELD WANTED WORDS]...
void Mirror::set(Space& space, const Parts& parts) {
  const size_t slash = parts.front().find('/');
  if (parts.size() < 2 || slash == std::string_view::npos) return;
  const std::string_view name = parts.front().substr(slash + 1);
  Shown shown;
  if (!parts[1].empty()) shown.pin = pin_of(key_values(parts[1]));
  for (size_t i = 2; i + kPartsOfClaim <= parts.size(); i += kPartsOfClaim) {
    RemoteClaim claim;
    const KeyValues words = key_values(parts[i + 3]);
    claim.who = presence_of(words);
    claim.token = claim.who.token;
    for (const size_t at : {i + 1, i + 2}) {
      const auto mode = mode_in(parts[at]);
      if (!mode || *mode == Mode::kNL) continue;
      claim.mode = *mode;
      claim.slots = parts[at] == kSlots;
      claim.waiting = at == i + 2;
      shown.claims.emplace_back(parts[i], claim);
    }
  }
  if (shown.pin || !shown.claims.empty()) {
    space.locks[std::string(name)] = std::move(shown);
  } else if (const auto found = space.locks.find(name); found != space.locks.end()) {
    space.locks.erase(found);
  }
}

void Mirror::add(const std::string& name, const Shown& shown, std::string_view self,
                 std::vector<RemoteLock>& locks) {
  RemoteLock lock{name, shown.pin, {}};
  for (const auto& [node, claim] : shown.claims) {
    if (node != self) lock.claims.push_back(claim);
  }
  if (lock.pin || !lock.claims.empty()) locks.push_back(std::move(lock));
}

void Mirror::set_pin(std::string_view lockspace, std::string_view name,
                     const std::optional<Pin>& pin) {
  const auto found = spaces_.find(lockspace);
  if (found == spaces_.end() || !found->second.loaded) return;
  Shown& shown = found->second.locks[std::string(name)];
  shown.pin = pin;
  if (!pin && shown.claims.empty()) found->second.locks.erase(std::string(name));
}

std::vector<RemoteLock> Mirror::of(std::string_view lockspace, std::string_view name,
                                   std::string_view self) const {
  std::vector<RemoteLock> out;
  const auto space = spaces_.find(lockspace);
  if (space == spaces_.end()) return out;
  const auto found = space->second.locks.find(name);
  if (found != space->second.locks.end()) add(found->first, found->second, self, out);
  return out;
}

std::vector<RemoteLock> Mirror::all(std::string_view lockspace, std::string_view self) const {
  std::vector<RemoteLock> out;
  const auto space = spaces_.find(lockspace);
  if (space == spaces_.end()) return out;
  for (const auto& [name, shown] : space->second.locks) add(name, shown, self, out);
  return out;
}

}  // namespace lockfs::redis
