// SPDX-License-Identifier: MIT
#include "fs/mount_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace lockfs {
namespace {

// A descriptor of a place without its filesystem: nobody is asked for it.
class PlaceFd {
 public:
  explicit PlaceFd(const std::string& path) : fd_(open(path.c_str(), O_PATH | O_CLOEXEC)) {}
  ~PlaceFd() {
    if (fd_ >= 0) close(fd_);
  }
  PlaceFd(const PlaceFd&) = delete;
  PlaceFd& operator=(const PlaceFd&) = delete;

  /// The same place, whatever is mounted over it meanwhile.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  /// The id of the mount that it is on; empty if nobody can tell.
  std::string mount_id() const {
    std::ifstream info("/proc/self/fdinfo/" + std::to_string(fd_));
    for (std::string key, value; info >> key >> value;) {
      if (key == "mnt_id:") return value;
    }
    return {};
  }

 private:
  int fd_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool is_octal(std::string_view digits) {
  return digits.size() == 3 && digits.find_first_not_of("01234567") == std::string_view::npos;
}

// mountinfo writes blanks, and what else would end a word, as "\040".
std::string unescaped(std::string_view word) {
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    const std::string_view digits = word.substr(i + 1, 3);
    if (word[i] == '\\' && is_octal(digits)) {
      out += static_cast<char>(std::stoi(std::string(digits), nullptr, 8));
      i += 3;
    } else {
      out += word[i];
    }
  }
  return out;
}

std::optional<MountEntry> mount_at(const PlaceFd& place) {
  const std::string id = place.mount_id();
  if (id.empty()) return std::nullopt;
  auto mount = mount_with_id(text_of("/proc/self/mountinfo"), id);
  std::error_code error;
  const auto path = std::filesystem::read_symlink(place.path(), error);
  if (!mount || error || mount->place != path) return std::nullopt;
  return mount;
}

std::optional<std::string> refusal_at(const std::string& path,
                                      const std::optional<MountEntry>& mount) {
  if (!mount || mount->type != "fuse.lockfs") return std::nullopt;
  return fmt::format(
      "{0}: a lockfs ({1}) is mounted there already; umount it first (umount -l {0} if its daemon "
      "is gone: ls {0} then says 'Transport endpoint is not connected')",
      path, mount->source);
}

}  // namespace

std::optional<MountEntry> mount_with_id(std::string_view mountinfo, std::string_view id) {
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash));
    std::istringstream behind(line.substr(dash + 3));
    std::string own;
    std::string skipped;
    MountEntry mount;
    before >> own >> skipped >> mount.device >> skipped >> mount.place;
    if (own != id) continue;
    behind >> mount.type >> mount.source;
    mount.place = unescaped(mount.place);
    mount.source = unescaped(mount.source);
    return mount;
  }
  return std::nullopt;
}

std::optional<MountEntry> mount_at(const std::string& path) { return mount_at(PlaceFd(path)); }

tl::expected<MountTurn, std::string> MountTurn::take(const std::string& place) {
  const PlaceFd before(place);
  if (auto refusal = refusal_at(place, mount_at(before))) return tl::make_unexpected(*refusal);
  // By its own path it would be a lockfs that was mounted just now, and its daemon asked.
  MountTurn turn(open(before.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (turn.directory_ >= 0 && flock(turn.directory_, LOCK_EX | LOCK_NB) != 0 &&
      errno == EWOULDBLOCK) {
    return tl::make_unexpected(
        place +
        ": another lockfs is being mounted there just now; lslocks tells which process has the "
        "directory locked");
  }
  if (auto refusal = refusal_at(place, mount_at(place))) return tl::make_unexpected(*refusal);
  return turn;
}

MountTurn::MountTurn(MountTurn&& other) noexcept
    : directory_(std::exchange(other.directory_, -1)) {}

MountTurn& MountTurn::operator=(MountTurn&& other) noexcept {
  std::swap(directory_, other.directory_);
  return *this;
}

void MountTurn::end() {
  if (directory_ < 0) return;
  flock(directory_, LOCK_UN);
  close(std::exchange(directory_, -1));
}

}  // namespace lockfs
