// SPDX-License-Identifier: MIT
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ctl/lock_path.h"
#include "ctl/mount_point.h"

namespace lockfs::ctl {

/// A process that holds or waits, as the mount describes it. Its pid is the daemon's number of it.
struct Party {
  std::string mode;
  pid_t pid = 0;
  std::string comm;
  uid_t uid = 0;
  std::string host;
  std::string container;
};

struct Holder : Party {
  std::string since;  ///< UTC; empty if it is not known.
  double held = 0;    ///< Seconds.
  std::string expires;
  std::string note;
  bool exited = false;     ///< The process is gone, and another one has its descriptor.
  bool lingering = false;  ///< It is closed, and kept for a while.
  pid_t opener = 0;        ///< Of one that has exited: who opened the file, if it lives; else 0.
  std::string opener_comm;
};

struct Waiter : Party {
  double waiting = 0;  ///< Seconds.
  std::string deadline;
};

/// Counts since the name came to be known; times in seconds.
struct Stats {
  uint64_t grants = 0;
  uint64_t contended = 0;
  uint64_t timeouts = 0;
  uint64_t deadlocks = 0;
  uint64_t lost = 0;
  double wait_mean = 0;
  double wait_max = 0;
  double hold_mean = 0;
  double hold_max = 0;
};

/// What the mount tells of one lock. Of holders and waiters it lists at most a hundred.
struct Picture {
  LockPath lock;
  std::string backend;
  std::string mode = "free";
  bool pinned = false;
  uint64_t token = 0;
  std::string elsewhere;    ///< Why the backend could not be asked; empty: it was.
  std::string value_block;  ///< "invalid", or empty.
  size_t holders_total = 0;
  size_t waiters_total = 0;
  std::vector<Holder> holders;
  std::vector<Waiter> waiters;
  Stats stats;
  nlohmann::json raw;  ///< As it came.

  bool held() const { return mode != "free"; }
};

/// Reads what the mount says, in its own keys; any of them may be absent. A wait has the keys of
/// its lock and of its waiter.
LockPath to_lock(const nlohmann::json& raw);
Waiter to_waiter(const nlohmann::json& raw);
Picture to_picture(const nlohmann::json& raw);

/// The mount's YAML as JSON: strings where they are quoted, else numbers, booleans, null, words.
/// Failure if it is no YAML.
nlohmann::json yaml_to_json(const std::string& yaml);

/// All locks that are held, waited for or pinned, of the text of `.lockfs/locks.json`. Failure if
/// it is no JSON.
std::vector<Picture> to_pictures(const std::string& text);
/// The same, as it is now. Failure if the mount does not answer.
std::vector<Picture> read_locks(const MountPoint& mount);

/// A name of a lock or lockspace as the mount tells it: bytes that are not UTF-8 are replaced. To
/// be compared with what a Picture or a wait has.
std::string as_told(const std::string& name);

/// One lock, whether anybody holds it or not. Failure if it cannot be read, or there is no such
/// lockspace.
Picture read_lock(const MountPoint& mount, const LockPath& lock);

/// Whom to look at: the holder; of one that has exited, who opened the file, if that one lives. A
/// shell that says `exec 9<>FILE; flock 9` is such an opener.
pid_t pid_to_look_at(const Holder& holder);
/// Of that one, for a column: the number, and "backup.sh" or "flock (exited)"; empty if the mount
/// does not see it.
std::string pid_to_show(const Holder& holder);
std::string command_to_show(const Holder& holder);
/// "pid 4711 (backup.sh)" of that one, or "pid 4700 (flock), which has exited".
std::string holder_to_look_at(const Holder& holder);

/// "EX by pid 4711 (backup.sh), and 2 more"; "nobody" when it is free.
std::string holders_in_words(const Picture& picture);

}  // namespace lockfs::ctl
