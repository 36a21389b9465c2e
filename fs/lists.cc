// SPDX-License-Identifier: MIT
// The files of .lockfs that grow with the locks: locks.json, and waits.
#include <map>
#include <unordered_map>
#include <utility>

#include "fs/lock_fs.h"

namespace lockfs {

// All locks that the reader may read. Each is shown as it is at its turn.
class LockFs::LockText final : public LongText {
 public:
  LockText(LockFs& fs, Reader reader) : fs_(fs), reader_(std::move(reader)) {}

  // Asks about all lockspaces at once; after the last answer the text is made.
  void begin(std::function<void()> ready) override {
    ready_ = std::move(ready);
    std::vector<uint32_t> ids;
    for (const auto& [id, space] : fs_.table_.lockspaces()) ids.push_back(id);
    asked_ = ids.size() + 1;
    for (const uint32_t id : ids) {
      fs_.table_.look_all(*fs_.table_.find_lockspace(id),
                          [this, id](LockErrc result, const std::vector<RemoteLock>& remote) {
                            const Lockspace* space = fs_.table_.find_lockspace(id);
                            if (space != nullptr) note_names(*space, result, remote);
                            answered();
                          });
    }
    answered();
  }

  bool add_to(std::string& text) override {
    if (text.empty()) text = "{\"locks\": [";
    if (left_.empty()) {
      text += "\n]}\n";
      return false;
    }
    const auto [id, name] = std::move(left_.back());
    left_.pop_back();
    if (Lockspace* space = fs_.table_.find_lockspace(id)) add_lock(*space, name, text);
    return true;
  }

 private:
  struct Space {
    LockErrc result = LockErrc::kOk;
    std::unordered_map<std::string, RemoteLock> elsewhere;
  };

  void answered() {
    if (--asked_ == 0) ready_();
  }

  void note_names(const Lockspace& space, LockErrc result, const std::vector<RemoteLock>& remote) {
    Space& noted = spaces_[space.id];
    noted.result = result;
    for (const RemoteLock& lock : remote) {
      if (!lock.held()) continue;
      noted.elsewhere[lock.name] = lock;
      left_.emplace_back(space.id, lock.name);
    }
    for (const auto& [name, lock] : space.locks) {
      const bool shown = lock.visible() || lock.waiters() != 0;
      if (shown && !noted.elsewhere.contains(name)) left_.emplace_back(space.id, name);
    }
  }

  void add_lock(const Lockspace& space, const std::string& name, std::string& text) {
    static const RemoteLock nothing;
    const Space& noted = spaces_[space.id];
    const auto elsewhere = noted.elsewhere.find(name);
    const RemoteLock& remote = elsewhere != noted.elsewhere.end() ? elsewhere->second : nothing;
    const auto here = space.locks.find(name);
    const Lock* lock = here != space.locks.end() ? &here->second : nullptr;
    const bool local = lock != nullptr && (lock->visible() || lock->waiters() != 0);
    if (!local && !remote.held()) return;
    if (lock != nullptr ? !fs_.may_read(reader_, *lock) : !fs_.may_read(reader_, space)) return;
    text += text.ends_with('[') ? "\n" : ",\n";
    text += fs_.painter_.as_json(space, name, lock, {noted.result, remote});
  }

  LockFs& fs_;
  Reader reader_;
  std::function<void()> ready_;
  size_t asked_ = 0;  ///< Lockspaces that have not answered yet, and begin().
  std::map<uint32_t, Space> spaces_;
  std::vector<std::pair<uint32_t, std::string>> left_;  ///< Lockspace and name.
};

// Who waits for whom when it begins; who has it then is described at its turn.
class LockFs::WaitText final : public LongText {
 public:
  WaitText(LockFs& fs, Reader reader) : fs_(fs), reader_(std::move(reader)) {}

  void begin(std::function<void()> ready) override {
    for (const WaitForGraph::Row& row : fs_.table_.waits()) {
      Wait& wait = waits_.emplace_back(Wait{row.waiter->id, {}, row.cycle});
      for (const Owner* blocker : row.blockers) wait.blockers.push_back(blocker->id);
    }
    ready();
  }

  bool add_to(std::string& text) override {
    if (at_ == waits_.size()) {
      if (text.empty()) text = "waits: []\n";
      return false;
    }
    const Wait& wait = waits_[at_++];
    const Owner* waiter = fs_.table_.find(wait.waiter);
    if (waiter == nullptr || !waiter->wait || !fs_.may_read(reader_, *waiter->lock)) return true;
    std::vector<const Owner*> blockers;
    for (const OwnerId id : wait.blockers) {
      if (const Owner* blocker = fs_.table_.find(id)) blockers.push_back(blocker);
    }
    if (text.empty()) text = "waits:\n";
    text += fs_.painter_.wait(*waiter, blockers, wait.cycle);
    return true;
  }

 private:
  struct Wait {
    OwnerId waiter = OwnerId::kNone;
    std::vector<OwnerId> blockers;
    bool cycle = false;
  };
  LockFs& fs_;
  Reader reader_;
  std::vector<Wait> waits_;
  size_t at_ = 0;
};

std::unique_ptr<LongText> LockFs::lock_text(const Reader& reader) {
  return std::make_unique<LockText>(*this, reader);
}

std::unique_ptr<LongText> LockFs::wait_text(const Reader& reader) {
  return std::make_unique<WaitText>(*this, reader);
}

}  // namespace lockfs
