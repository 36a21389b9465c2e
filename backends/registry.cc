// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <array>
#include <bit>
#include <map>

#ifdef LOCKFS_DLM
#include "backends/dlm/cluster.h"
#include "backends/dlm/dlm_backend.h"
#endif
#ifdef LOCKFS_ELOCK
#include "backends/elock/elock_backend.h"
#include "backends/elock/elock_url.h"
#endif
#ifdef LOCKFS_GRPC
#include "backends/etcd/etcd_backend.h"
#include "backends/etcd/etcd_url.h"
#include "backends/ldlm/ldlm_backend.h"
#include "backends/ldlm/ldlm_url.h"
#endif
#include "backends/file/file_backend.h"
#include "backends/libpod/libpod_backend.h"
#include "backends/memory.h"
#ifdef LOCKFS_REDIS
#include "backends/redis/go_dlm_backend.h"
#include "backends/redis/redis_backend.h"
#include "backends/redis/redis_url.h"
#endif
#include "backends/shm/shm_backend.h"
#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs {
namespace {

using Made = tl::expected<std::unique_ptr<LockBackend>, std::string>;
using Wrong = std::optional<std::string>;

Wrong check_memory(std::string_view /*scheme*/, std::string_view rest) {
  if (rest.empty()) return std::nullopt;
  return "memory: takes nothing behind the colon, but has '" + std::string(rest) + "'";
}
Made make_memory(std::string_view /*scheme*/, std::string_view /*rest*/, EventLoop& /*loop*/) {
  return std::make_unique<MemoryBackend>();
}

// What stands behind the '?' of file: and shm:.
struct Layout {
  bool libpod = false;
  bool write = false;
  std::optional<uint32_t> locks;
};
tl::expected<Layout, std::string> layout_of(const UrlQuery& query, bool knows_locks) {
  Layout out;
  for (const auto& [key, value] : query.options) {
    if (key == "layout" && value == "libpod") {
      out.libpod = true;
    } else if (key == "write" && value.empty()) {
      out.write = true;
    } else if (key == "locks" && knows_locks) {
      const auto count = parse_number(value, 64, 1U << 20U);
      if (!count || !std::has_single_bit(*count)) {
        return tl::make_unexpected("locks=" + value + ": takes a power of two from 64 to 1048576");
      }
      out.locks = static_cast<uint32_t>(*count);
    } else {
      return tl::make_unexpected("unknown option '" + key + (value.empty() ? "" : "=" + value) +
                                 "'; known: layout=libpod" + (knows_locks ? ", locks=N" : "") +
                                 ", and write with that layout");
    }
  }
  if (out.write && !out.libpod) return tl::make_unexpected("write goes with layout=libpod only");
  if (out.locks && out.libpod) return tl::make_unexpected("podman says how many locks there are");
  return out;
}

// A backend's path, and the layout of what is there; else what is wrong.
struct Located {
  std::string path;
  Layout layout;
};
using Where = tl::expected<Located, std::string>;

Where parse_shm(std::string_view rest) {
  const auto fail = [&](const std::string& words) {
    return tl::make_unexpected("shm:" + std::string(rest) + ": " + words);
  };
  UrlQuery query = split_query(rest);
  if (query.name.starts_with('/')) query.name.remove_prefix(1);
  if (query.name.empty() || query.name.size() > 200 || query.name.front() == '.' ||
      query.name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
    return fail("takes the name of a segment in /dev/shm, as shm:locks");
  }
  const auto layout = layout_of(query, true);
  if (!layout) return fail(layout.error());
  return Located{"/dev/shm/" + std::string(query.name), *layout};
}
Wrong check_shm(std::string_view /*scheme*/, std::string_view rest) {
  const auto where = parse_shm(rest);
  return where ? std::nullopt : Wrong(where.error());
}

Where parse_file(std::string_view rest) {
  const UrlQuery query = split_query(rest);
  if (!query.name.starts_with('/')) {
    return tl::make_unexpected("file: takes the absolute path of a directory, but has '" +
                               std::string(rest) + "'");
  }
  const auto layout = layout_of(query, false);
  if (!layout) {
    return tl::make_unexpected("file:" + std::string(rest) + ": " + layout.error());
  }
  return Located{std::string(query.name), *layout};
}
Wrong check_file(std::string_view /*scheme*/, std::string_view rest) {
  const auto where = parse_file(rest);
  return where ? std::nullopt : Wrong(where.error());
}

Made make_libpod(libpod::MadeLocks locks, const Layout& layout, EventLoop& loop) {
  if (!locks) return tl::make_unexpected(locks.error());
  return std::make_unique<LibpodBackend>(loop, std::move(*locks), layout.write);
}

Made make_shm(std::string_view /*scheme*/, std::string_view rest, EventLoop& loop) {
  const auto where = parse_shm(rest);
  if (!where) return tl::make_unexpected(where.error());
  if (where->layout.libpod) {
    return make_libpod(libpod::open_segment(where->path), where->layout, loop);
  }
  auto segment = shm::SharedSegment::open(where->path, where->layout.locks);
  if (!segment) return tl::make_unexpected(segment.error());
  return std::make_unique<ShmBackend>(loop, std::move(*segment));
}

Made make_file(std::string_view /*scheme*/, std::string_view rest, EventLoop& loop) {
  const auto where = parse_file(rest);
  if (!where) return tl::make_unexpected(where.error());
  if (where->layout.libpod) {
    return make_libpod(libpod::open_directory(where->path), where->layout, loop);
  }
  if (auto wrong = FileBackend::try_directory(where->path)) {
    return tl::make_unexpected(std::move(*wrong));
  }
  return std::make_unique<FileBackend>(loop, where->path);
}

// The prefix of its lockspaces' names in the DLM, where others have theirs.
tl::expected<std::string, std::string> parse_dlm(std::string_view rest) {
  const UrlQuery query = split_query(rest);
  std::string prefix = "lockfs_";
  for (const auto& [key, value] : query.options) {
    if (!query.name.empty() || key != "prefix" || value.size() > 32) {
      return tl::make_unexpected(
          "dlm:" + std::string(rest) +
          ": takes no name, and one option, prefix=WORD of at most 32 bytes");
    }
    prefix = value;
  }
  if (!query.name.empty()) return tl::make_unexpected("dlm: takes no name, as the cluster is one");
  return prefix;
}
Wrong check_dlm(std::string_view /*scheme*/, std::string_view rest) {
  const auto prefix = parse_dlm(rest);
  return prefix ? std::nullopt : Wrong(prefix.error());
}
Made make_dlm(std::string_view /*scheme*/, std::string_view rest,
              [[maybe_unused]] EventLoop& loop) {
#ifdef LOCKFS_DLM
  if (auto missing = dlm::what_is_missing()) return tl::make_unexpected("dlm: " + *missing);
  return std::make_unique<DlmBackend>(loop, *parse_dlm(rest));
#else
  return tl::make_unexpected("dlm:" + std::string(rest) + ": this lockfs was built without libdlm");
#endif
}

// Of a server on the network.
template <auto parse>
Wrong check_server(std::string_view scheme, std::string_view rest) {
  const auto url = parse(scheme, rest);
  return url ? std::nullopt : Wrong(url.error());
}
template <auto parse, class Backend>
Made make_server(std::string_view scheme, std::string_view rest, EventLoop& loop) {
  return std::make_unique<Backend>(loop, *parse(scheme, rest));
}
#ifdef LOCKFS_REDIS
Made make_redis(std::string_view scheme, std::string_view rest, EventLoop& loop) {
  const auto url = redis::parse_url(scheme, rest);
  if (url->layout == redis::Layout::kGoDlm) return std::make_unique<GoDlmBackend>(loop, *url);
  return std::make_unique<RedisBackend>(loop, *url);
}
#endif
#ifdef LOCKFS_ELOCK
auto parse_elock(std::string_view /*scheme*/, std::string_view rest) {
  return elock::parse_url(rest, false);
}
#endif

// What this lockfs was built without.
template <const char* what>
Wrong check_missing(std::string_view scheme, std::string_view /*rest*/) {
  return std::string(scheme) + ": this lockfs was built without " + what;
}
[[maybe_unused]] Made make_missing(std::string_view scheme, std::string_view /*rest*/,
                                   EventLoop& /*loop*/) {
  return tl::make_unexpected(std::string(scheme) + ": is not here");
}
[[maybe_unused]] constexpr char kHiredis[] = "hiredis and OpenSSL";  // NOLINT(*-avoid-c-arrays)
[[maybe_unused]] constexpr char kOpenSsl[] = "OpenSSL";              // NOLINT(*-avoid-c-arrays)
[[maybe_unused]] constexpr char kGrpc[] = "gRPC";                    // NOLINT(*-avoid-c-arrays)

struct Row {
  std::string_view scheme;
  /// Of what stands behind the colon.
  Wrong (*check)(std::string_view scheme, std::string_view rest);
  Made (*make)(std::string_view scheme, std::string_view rest, EventLoop& loop);
};
constexpr std::array kRows = {
    Row{"memory", check_memory, make_memory},
    Row{"file", check_file, make_file},
    Row{"shm", check_shm, make_shm},
    Row{"dlm", check_dlm, make_dlm},
#ifdef LOCKFS_REDIS
    Row{"redis", check_server<redis::parse_url>, make_redis},
    Row{"rediss", check_server<redis::parse_url>, make_redis},
    Row{"redis+unix", check_server<redis::parse_url>, make_redis},
#else
    Row{"redis", check_missing<kHiredis>, make_missing},
    Row{"rediss", check_missing<kHiredis>, make_missing},
    Row{"redis+unix", check_missing<kHiredis>, make_missing},
#endif
#ifdef LOCKFS_GRPC
    Row{"etcd", check_server<etcd::parse_url>, make_server<etcd::parse_url, EtcdBackend>},
    Row{"etcds", check_server<etcd::parse_url>, make_server<etcd::parse_url, EtcdBackend>},
    Row{"ldlm", check_server<ldlm::parse_url>, make_server<ldlm::parse_url, LdlmBackend>},
    Row{"ldlms", check_server<ldlm::parse_url>, make_server<ldlm::parse_url, LdlmBackend>},
#else
    Row{"etcd", check_missing<kGrpc>, make_missing},
    Row{"etcds", check_missing<kGrpc>, make_missing},
    Row{"ldlm", check_missing<kGrpc>, make_missing},
    Row{"ldlms", check_missing<kGrpc>, make_missing},
#endif
#ifdef LOCKFS_ELOCK
    Row{"elock", check_server<parse_elock>, make_server<parse_elock, ElockBackend>},
#else
    Row{"elock", check_missing<kOpenSsl>, make_missing},
#endif
};

const Row* row_of(std::string_view url) {
  const size_t colon = url.find(':');
  for (const Row& row : kRows) {
    if (colon != std::string_view::npos && url.substr(0, colon) == row.scheme) return &row;
  }
  return nullptr;
}

}  // namespace

Wrong check_backend_url(std::string_view url) {
  if (const Row* row = row_of(url))
    return row->check(row->scheme, url.substr(row->scheme.size() + 1));
  std::string known;
  for (const Row& row : kRows) known += (known.empty() ? "" : ", ") + std::string(row.scheme) + ":";
  return "'" + shown_url(url) + "' names no backend; known here: " + known;
}

std::string shown_url(std::string_view url) {
  const size_t start = url.find("://");
  const size_t at = url.rfind('@', url.find('?'));
  if (start == std::string_view::npos || at == std::string_view::npos || at < start) {
    return std::string(url);
  }
  const size_t colon = url.find(':', start + 3);
  if (colon > at) return std::string(url);
  return std::string(url.substr(0, colon)) + ":***" + std::string(url.substr(at));
}

Made make_backend(std::string_view url, EventLoop& loop) {
  if (auto wrong = check_backend_url(url)) return tl::make_unexpected(std::move(*wrong));
  const Row& row = *row_of(url);
  return row.make(row.scheme, url.substr(row.scheme.size() + 1), loop);
}

}  // namespace lockfs
