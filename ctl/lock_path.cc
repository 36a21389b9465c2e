// SPDX-License-Identifier: MIT
#include "ctl/lock_path.h"

#include <fmt/format.h>

#include <array>
#include <climits>
#include <cstdlib>

#include "ctl/failure.h"
#include "ctl/words.h"

namespace lockfs::ctl {

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
  if (!name.starts_with("/") && !name.starts_with("./") && !name.starts_with("../")) return name;
  const size_t slash = name.rfind('/');
  std::array<char, PATH_MAX> real{};
  const std::string directory = slash == 0 ? "/" : name.substr(0, slash);
  if (realpath(directory.c_str(), real.data()) == nullptr) return name;
  return std::string(real.data()) + name.substr(slash);
}

LockPath parse_lock_path(const MountPoint& mount, const std::string& name) {
  std::string rest = name;
  if (rest.starts_with(mount.path + "/")) {
    rest.erase(0, mount.path.size() + 1);
  } else if (rest.starts_with("/") || rest.starts_with("./") || rest.starts_with("../")) {
    throw Failure(ExitCode::kUsage, fmt::format("{} is not below {}, where lockfs is mounted",
                                                printable(name), printable(mount.path)));
  }
  LockPath lock;
  const size_t slash = rest.find('/');
  if (slash != std::string::npos) lock.lockspace = rest.substr(0, slash);
  lock.file = slash == std::string::npos ? rest : rest.substr(slash + 1);
  const auto is_taken = [](const std::string& word) {
    return word.empty() || word == "." || word == ".." || word == ".ctl" || word == ".lockfs";
  };
  if (is_taken(lock.lockspace) || is_taken(lock.file) || lock.file.find('/') != std::string::npos) {
    throw Failure(ExitCode::kUsage,
                  fmt::format("'{}' does not name a lock; say NAME, LOCKSPACE/NAME or a path below "
                              "{}; a / within a name is written %2F",
                              printable(name), printable(mount.path)));
  }
  return lock;
}

}  // namespace lockfs::ctl
