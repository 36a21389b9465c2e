// SPDX-License-Identifier: MIT
#include "core/lock_name.h"

namespace lockfs {
namespace {

bool is_code(std::string_view rest) { return rest.starts_with("%2F") || rest.starts_with("%25"); }

}  // namespace

std::string file_name(std::string_view lock) {
  std::string out;
  for (size_t i = 0; i < lock.size(); ++i) {
    if (lock[i] == '/') {
      out += "%2F";
    } else if (is_code(lock.substr(i))) {
      out += "%25";
    } else {
      out += lock[i];
    }
  }
  return out;
}

std::string lock_name(std::string_view file) {
  std::string out;
  for (size_t i = 0; i < file.size(); ++i) {
    const bool code = is_code(file.substr(i));
    out += code ? (file[i + 2] == 'F' ? '/' : '%') : file[i];
    if (code) i += 2;
  }
  return out;
}

}  // namespace lockfs
