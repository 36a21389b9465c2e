// SPDX-License-Identifier: MIT
#include "ctl/lock_path.h"

#include <fmt/format.h>

#include <array>
#include <climits>
#include <cstdlib>

#include "ctl/failure.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

bool is_path(const std::string& name) {
  return name.starts_with("/") || name.starts_with("./") || name.starts_with("../");
}

}  // namespace

std::string LockPath::shown() const { return printable(name()); }

std::string file_name(const std::string& lock) {
  std::string out;
  for (size_t i = 0; i < lock.size(); ++i) {
    const std::string code = lock.substr(i, 3);
    if (lock[i] == '/') {
      out += "%2F";
    } else if (code == "%2F" || code == "%25") {
      out += "%25";
    } else {
      out += lock[i];
    }
  }
  return out;
}

std::string lock_name(const std::string& file) {
  std::string out;
  for (size_t i = 0; i < file.size(); ++i) {
    const std::string code = file.substr(i, 3);
    const bool coded = code == "%2F" || code == "%25";
    if (coded) i += 2;
    out += code == "%2F" ? '/' : file[i - (coded ? 2 : 0)];
  }
  return out;
}

std::string with_real_directory(const std::string& name) {
  if (!is_path(name)) return name;
  const size_t slash = name.rfind('/');
  std::array<char, PATH_MAX> real{};
  const std::string directory = slash == 0 ? "/" : name.substr(0, slash);
  if (realpath(directory.c_str(), real.data()) == nullptr) return name;
  return std::string(real.data()) + name.substr(slash);
}

bool is_file_name(const std::string& name) {
  const bool taken =
      name.empty() || name == "." || name == ".." || name == ".ctl" || name == ".lockfs";
  return !taken && name.find('/') == std::string::npos;
}

LockPath parse_lock_path(const MountPoint& mount, const std::string& name) {
  std::string rest = name;
  if (rest.starts_with(mount.path + "/")) {
    rest.erase(0, mount.path.size() + 1);
  } else if (name == mount.path) {
    rest.clear();
  } else if (is_path(name)) {
    throw Failure(ExitCode::kUsage, fmt::format("{} is not below {}, where lockfs is mounted",
                                                printable(name), printable(mount.path)));
  }
  LockPath lock;
  const size_t slash = rest.find('/');
  if (slash != std::string::npos) lock.lockspace = rest.substr(0, slash);
  lock.file = slash == std::string::npos ? rest : rest.substr(slash + 1);
  const bool is_lockspace = is_path(name) && slash == std::string::npos;
  if (is_lockspace || !is_file_name(lock.lockspace) || !is_file_name(lock.file)) {
    throw Failure(ExitCode::kUsage,
                  fmt::format("'{}' does not name a lock; say NAME, LOCKSPACE/NAME or {}/LOCKSPACE/"
                              "NAME; a / within a name is written %2F",
                              printable(name), printable(mount.path)));
  }
  return lock;
}

}  // namespace lockfs::ctl
