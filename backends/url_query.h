// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <string_view>

namespace lockfs {

/// "NAME?key=value,word" in its parts.
struct UrlQuery {
  std::string_view name;
  std::map<std::string, std::string> options;
};

inline UrlQuery split_query(std::string_view rest) {
  const size_t mark = rest.find('?');
  UrlQuery out{rest.substr(0, mark), {}};
  if (mark == std::string_view::npos) return out;
  rest.remove_prefix(mark + 1);
  for (;;) {
    const std::string_view word = rest.substr(0, rest.find_first_of(",&"));
    const size_t equals = std::min(word.find('='), word.size());
    out.options[std::string(word.substr(0, equals))] =
        word.substr(std::min(equals + 1, word.size()));
    if (word.size() == rest.size()) return out;
    rest.remove_prefix(word.size() + 1);
  }
}

}  // namespace lockfs
