// SPDX-License-Identifier: MIT
#pragma once
#include <sys/stat.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace lockfs {

/// The names in a directory as one reader of it sees them, packed: ten bytes more than the name is.
class NameList {
 public:
  struct Entry {
    const char* name;
    ino_t inode;
    mode_t type;  ///< S_IFREG or S_IFDIR.
  };
  void add(std::string_view name, ino_t inode, mode_t mode);
  /// No more are added: gives back the room for them.
  void pack() { packed_.shrink_to_fit(); }
  size_t size() const { return size_; }
  size_t bytes() const { return packed_.size(); }
  /// The entry of that number, below size(). Quick for the last one asked for and the next.
  Entry at(size_t number);

 private:
  size_t end_of(size_t start) const;

  std::string packed_;  ///< Of each its inode, a letter for its type, its name, a NUL.
  size_t size_ = 0;
  size_t number_ = 0;  ///< Of the last one asked for.
  size_t start_ = 0;   ///< Where that begins.
};

}  // namespace lockfs
