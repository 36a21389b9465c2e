// SPDX-License-Identifier: MIT
#include "fs/name_list.h"

#include <cstring>

namespace lockfs {
namespace {

constexpr size_t kTypeAt = sizeof(ino_t);
constexpr size_t kNameAt = kTypeAt + 1;

}  // namespace

void NameList::add(std::string_view name, ino_t inode, mode_t mode) {
  packed_.append(reinterpret_cast<const char*>(&inode), sizeof(inode));
  packed_ += S_ISDIR(mode) ? 'd' : 'f';
  packed_ += name;
  packed_ += '\0';
  ++size_;
}

size_t NameList::end_of(size_t start) const { return packed_.find('\0', start + kNameAt) + 1; }

NameList::Entry NameList::at(size_t number) {
  if (number < number_) number_ = start_ = 0;
  for (; number_ < number; ++number_) start_ = end_of(start_);
  Entry entry{packed_.data() + start_ + kNameAt, 0,
              packed_[start_ + kTypeAt] == 'd' ? mode_t{S_IFDIR} : mode_t{S_IFREG}};
  std::memcpy(&entry.inode, packed_.data() + start_, sizeof(entry.inode));
  return entry;
}

}  // namespace lockfs
