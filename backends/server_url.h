// SPDX-License-Identifier: MIT
#pragma once
#include <fstream>
#include <string>
#include <string_view>

#include "backends/key_values.h"
#include "core/timer_queue.h"
#include "core/words.h"

namespace lockfs {

// What URLs of servers have in common. Each says what is wrong, or nothing.

/// Takes "USER[:PASSWORD]@" away from before the place of a server.
inline void take_login(std::string_view& place, std::string& user, std::string& password) {
  const size_t at = place.rfind('@');
  if (at == std::string_view::npos) return;
  const std::string_view login = place.substr(0, at);
  const size_t colon = login.find(':');
  user = unquoted_value(login.substr(0, colon));
  if (colon != std::string_view::npos) password = unquoted_value(login.substr(colon + 1));
  place.remove_prefix(at + 1);
}

/// The first line of a file.
inline std::string read_password(std::string& password, const std::string& path) {
  std::ifstream file(path);
  return std::getline(file, password) ? "" : "cannot read a line of " + path;
}

/// A lease of a server that counts in seconds: from two on, and to `most`, which `words` has too.
inline std::string set_lease(Duration& lease, std::string_view value, Duration most,
                             std::string_view words) {
  const auto duration = parse_duration(value);
  if (!duration) return duration.error();
  const bool whole = *duration % std::chrono::seconds(1) == Duration::zero();
  if (!whole || *duration < std::chrono::seconds(2) || *duration > most) {
    return "takes whole seconds, 2s to " + std::string(words);
  }
  lease = *duration;
  return {};
}

}  // namespace lockfs
