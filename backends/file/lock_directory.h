// SPDX-License-Identifier: MIT
#pragma once
#include <sys/stat.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/lock_errc.h"
#include "system/open_file.h"

namespace lockfs {

/// DIR of `file:DIR`, with a file for each lock: DIR/LOCKSPACE/NAME. For one thread, which may wait
/// for the filesystem.
///
/// Others may be able to write in it. Below DIR no symbolic link is followed, what is no plain file
/// is no lock, what has a second name is not written, and no open waits.
///
/// Who takes DIR, or a lockspace's folder, away and makes another one parts those who hold the old
/// files from those who open the new ones. A mount looks each kCheck whether its files still have
/// their names; and when it meets another directory than before, it opens nothing for kGrace, in
/// which the others look.
class LockDirectory {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kCheck = std::chrono::seconds(1);
  static constexpr auto kGrace = std::chrono::seconds(2);

  /// `reach_changed`: trouble() says something else.
  LockDirectory(std::string path, std::function<void()> reach_changed);

  /// A lock's file, as the others here want it: LOCKSPACE/NAME, in file names.
  static std::string file_of(const std::string& lockspace, const std::string& name);
  std::string path_of(const std::string& file) const { return path_ + "/" + file; }

  enum class For { kLooking, kWriting, kMaking };
  /// kNotFound, unless it is for making; kInvalid when a lock cannot have that name; kUnreachable.
  tl::expected<OpenFile, LockErrc> open(const std::string& file, For what);
  /// The files of a lockspace; none when it has no folder. kUnreachable.
  tl::expected<std::vector<std::string>, LockErrc> files(const std::string& lockspace);

  /// What the filesystem would not do last, in words; empty once it has done it, as far as is
  /// known.
  const std::string& trouble() const { return trouble_; }
  /// What its user met with an open file, by errno or in words: it is trouble(), and kUnreachable.
  LockErrc failed(const std::string& file, int error);
  LockErrc out_of_reach(std::string words, int error = 0);
  /// Something was written.
  void written() { in_reach(true); }

  /// Why an open file is not the one that others would open by this name; nullopt when it is, and
  /// when nobody can tell.
  std::optional<std::string> gone(const std::string& file, int fd) const;

 private:
  using Identity = std::pair<dev_t, ino_t>;
  tl::unexpected<LockErrc> refuse(const std::string& file, int error, bool make);
  void in_reach(bool written);
  tl::expected<OpenFile, LockErrc> folder_of(const std::string& file, bool make);
  void meet(const std::string& path, int fd);

  std::string path_;
  mode_t mode_ = 0700;  ///< DIR's: whoever can open a lock's file can hold it.
  std::unordered_map<std::string, Identity> known_;  ///< Directories, as they were met last.
  Clock::time_point grace_until_;
  std::function<void()> reach_changed_;
  std::string trouble_;
  int trouble_error_ = 0;  ///< Of the system call that failed; 0: it was none.
};

}  // namespace lockfs
