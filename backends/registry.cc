// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <array>
#include <cctype>

#include "backends/memory.h"

namespace lockfs {
namespace {

using Made = tl::expected<std::unique_ptr<LockBackend>, std::string>;

Made make_memory(std::string_view rest) {
  if (!rest.empty()) {
    return tl::make_unexpected("memory: takes nothing behind the colon, but has '" +
                               std::string(rest) + "'");
  }
  return std::make_unique<MemoryBackend>();
}

struct Row {
  std::string_view scheme;
  Made (*make)(std::string_view rest);
};
constexpr std::array kRows = {Row{"memory", make_memory}};

}  // namespace

Made make_backend(std::string_view url) {
  const size_t colon = url.find(':');
  std::string known;
  if (colon != std::string_view::npos) {
    for (const Row& row : kRows) {
      if (url.substr(0, colon) == row.scheme) return row.make(url.substr(colon + 1));
    }
  }
  for (const Row& row : kRows) known += (known.empty() ? "" : ", ") + std::string(row.scheme) + ":";
  return tl::make_unexpected("'" + std::string(url) + "' names no backend; known here: " + known);
}

}  // namespace lockfs
