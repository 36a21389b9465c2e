// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <array>

#include "backends/file/file_backend.h"
#include "backends/memory.h"

namespace lockfs {
namespace {

using Made = tl::expected<std::unique_ptr<LockBackend>, std::string>;
using Wrong = std::optional<std::string>;

Wrong check_memory(std::string_view rest) {
  if (rest.empty()) return std::nullopt;
  return "memory: takes nothing behind the colon, but has '" + std::string(rest) + "'";
}
Made make_memory(std::string_view /*rest*/, EventLoop& /*loop*/) {
  return std::make_unique<MemoryBackend>();
}

Wrong check_file(std::string_view rest) {
  if (rest.starts_with('/')) return std::nullopt;
  return "file: takes the absolute path of a directory, but has '" + std::string(rest) + "'";
}
Made make_file(std::string_view rest, EventLoop& loop) {
  const std::string directory(rest);
  if (auto wrong = FileBackend::try_directory(directory)) {
    return tl::make_unexpected(std::move(*wrong));
  }
  return std::make_unique<FileBackend>(loop, directory);
}

struct Row {
  std::string_view scheme;
  Wrong (*check)(std::string_view rest);  ///< Of what stands behind the colon.
  Made (*make)(std::string_view rest, EventLoop& loop);
};
constexpr std::array kRows = {Row{"memory", check_memory, make_memory},
                              Row{"file", check_file, make_file}};

const Row* row_of(std::string_view url) {
  const size_t colon = url.find(':');
  for (const Row& row : kRows) {
    if (colon != std::string_view::npos && url.substr(0, colon) == row.scheme) return &row;
  }
  return nullptr;
}

}  // namespace

Wrong check_backend_url(std::string_view url) {
  if (const Row* row = row_of(url)) return row->check(url.substr(row->scheme.size() + 1));
  std::string known;
  for (const Row& row : kRows) known += (known.empty() ? "" : ", ") + std::string(row.scheme) + ":";
  return "'" + std::string(url) + "' names no backend; known here: " + known;
}

Made make_backend(std::string_view url, EventLoop& loop) {
  if (auto wrong = check_backend_url(url)) return tl::make_unexpected(std::move(*wrong));
  const Row& row = *row_of(url);
  return row.make(url.substr(row.scheme.size() + 1), loop);
}

}  // namespace lockfs
