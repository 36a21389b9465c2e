// SPDX-License-Identifier: MIT
#include "system/mountinfo.h"

#include <sstream>
#include <utility>

namespace lockfs {
namespace {

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

}  // namespace

std::vector<MountEntry> mounts_of(std::string_view mountinfo) {
  std::vector<MountEntry> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash));
    std::istringstream behind(line.substr(dash + 3));
    std::string parent;
    MountEntry mount;
    before >> mount.id >> parent >> mount.device >> mount.root >> mount.place;
    behind >> mount.type >> mount.source;
    mount.place = unescaped(mount.place);
    mount.source = unescaped(mount.source);
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

}  // namespace lockfs
