// SPDX-License-Identifier: MIT
#include "backends/registry.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <map>
#include <mutex>

#include "backends/file/file_backend.h"
#include "backends/libpod/libpod_backend.h"
#include "backends/memory.h"
#include "backends/shm/shm_backend.h"
#include "backends/url_query.h"
#include "core/words.h"

namespace lockfs {
namespace {

using Wrong = std::optional<std::string>;

Wrong check_memory(std::string_view /*scheme*/, std::string_view rest) {
  if (rest.empty()) return std::nullopt;
  return "memory: takes nothing behind the colon, but has '" + std::string(rest) + "'";
}
Prepared prepare_memory(std::string_view scheme, std::string_view rest) {
  if (auto wrong = check_memory(scheme, rest)) return tl::make_unexpected(std::move(*wrong));
  return [](EventLoop& /*loop*/) { return std::make_unique<MemoryBackend>(); };
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
        return tl::make_unexpected("locks= takes a power of two from 64 to 1048576");
      }
      out.locks = static_cast<uint32_t>(*count);
    } else {
      return tl::make_unexpected("unknown option '" + key + (value.empty() ? "" : "=" + value) +
                                 "'; known: layout=libpod" + (knows_locks ? ", locks=N" : "") +
                                 ", and write with that layout");
    }
  }
  if (out.write && !out.libpod) return tl::make_unexpected("write goes with layout=libpod only");
  if (out.locks && out.libpod)
    return tl::make_unexpected(
        "locks= is for segments of ours: podman's has as many as podman made");
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

Prepared prepare_libpod(libpod::MadeLocks locks, const Layout& layout) {
  if (!locks) return tl::make_unexpected(locks.error());
  // A function can be copied, what was opened cannot.
  const auto opened = std::make_shared<std::unique_ptr<libpod::Locks>>(std::move(*locks));
  return [opened, write = layout.write](EventLoop& loop) {
    return std::make_unique<LibpodBackend>(loop, std::move(*opened), write);
  };
}

Prepared prepare_shm(std::string_view /*scheme*/, std::string_view rest) {
  const auto where = parse_shm(rest);
  if (!where) return tl::make_unexpected(where.error());
  if (where->layout.libpod) {
    return prepare_libpod(libpod::open_segment(where->path), where->layout);
  }
  auto segment = shm::SharedSegment::open(where->path, where->layout.locks);
  if (!segment) return tl::make_unexpected(segment.error());
  const auto opened = std::make_shared<std::unique_ptr<shm::SharedSegment>>(std::move(*segment));
  return
      [opened](EventLoop& loop) { return std::make_unique<ShmBackend>(loop, std::move(*opened)); };
}

Prepared prepare_file(std::string_view /*scheme*/, std::string_view rest) {
  const auto where = parse_file(rest);
  if (!where) return tl::make_unexpected(where.error());
  if (where->layout.libpod) {
    return prepare_libpod(libpod::open_directory(where->path), where->layout);
  }
  if (auto wrong = FileBackend::try_directory(where->path)) {
    return tl::make_unexpected(std::move(*wrong));
  }
  return
      [path = where->path](EventLoop& loop) { return std::make_unique<FileBackend>(loop, path); };
}

using Row = BackendRow;
constexpr std::array kRows = {Row{"memory", check_memory, prepare_memory},
                              Row{"file", check_file, prepare_file},
                              Row{"shm", check_shm, prepare_shm}};

constexpr std::array kUsages = {
    BackendUsage{"memory:", "this mount alone: every process of the host that sees it", nullptr},
    BackendUsage{"file:DIR[?layout=libpod[,write]]",
                 "every mount that sees the directory DIR, an absolute path; podman's locks there",
                 nullptr},
    BackendUsage{"shm:NAME[?locks=N | ?layout=libpod[,write]]",
                 "every mount of this host; room for N locks (4096); podman's locks there",
                 nullptr},
    BackendUsage{"dlm:[?prefix=WORD]",
                 "the nodes of a corosync cluster; prefix of the lockspaces' names (lockfs_)",
                 "dlm"},
    BackendUsage{"redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]",
                 "every mount that uses that database; options lease=DUR (10s), prefix=WORD, "
                 "password-file=FILE, db=N, layout=go-dlm",
                 "redis"},
    BackendUsage{"rediss://...", "the same by TLS; also ca=, cert=, key=FILE, verify=no", "redis"},
    BackendUsage{"redis+unix:///PATH", "the same by a socket", "redis"},
    BackendUsage{"etcd://[USER:PASSWORD@]HOST[:PORT],...",
                 "every mount and program that locks in that cluster; options lease=SECONDS (10s), "
                 "prefix=TEXT, password-file=FILE",
                 "etcd"},
    BackendUsage{"etcds://...", "the same by TLS; also ca=, cert=, key=FILE", "etcd"},
    BackendUsage{"ldlm://[:PASSWORD@]HOST[:PORT]",
                 "every mount and client of that LDLM server; options lease=SECONDS (10s), "
                 "password-file=FILE",
                 "ldlm"},
    BackendUsage{"ldlms://...", "the same by TLS; also ca=, cert=, key=FILE", "ldlm"},
    BackendUsage{"elock://HOST[:PORT]",
                 "every mount and client of that elock server; option timeout=DUR (30s)", "elock"}};

// PROGRAM/../lib/lockfs, where it is installed and where it was built.
std::string module_directory() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto place = program.parent_path();
  return (place.filename() == "bin" ? place.parent_path().string() : "/usr") + "/lib/lockfs";
}

// Whoever may write it may do all that we may.
bool is_safe(const std::string& file) {
  struct stat info {};
  return stat(file.c_str(), &info) == 0 && (info.st_uid == 0 || info.st_uid == geteuid()) &&
         (info.st_mode & S_IWOTH) == 0;
}

using Loaded = tl::expected<const BackendModule*, std::string>;

Loaded load(const std::string& name) {
  // A thread that prepares a backend may outlive main(): what it uses is never destroyed.
  static std::mutex mutex;
  static auto& loaded = *new std::map<std::string, const BackendModule*>;
  const std::lock_guard guard(mutex);
  if (const auto known = loaded.find(name); known != loaded.end()) return known->second;
  const std::string file = module_directory() + "/" + name + ".so";
  if (access(file.c_str(), F_OK) != 0) {
    return tl::make_unexpected("this lockfs comes without it: there is no " + file +
                               "; its package is lockfs-" + name);
  }
  if (!is_safe(file) || !is_safe(module_directory())) {
    return tl::make_unexpected(file + " is not loaded: others may write it, or its directory");
  }
  void* module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (module == nullptr) return tl::make_unexpected(std::string(dlerror()));
  const auto* made = static_cast<const BackendModule*>(dlsym(module, "lockfs_module"));
  if (made == nullptr || made->build != LOCKFS_BUILD) {
    return tl::make_unexpected(
        file + " belongs to another build of lockfs than this one: install both from one");
  }
  return loaded[name] = made;
}

std::string_view scheme_of(std::string_view url) {
  const size_t colon = url.find(':');
  return colon == std::string_view::npos ? "" : url.substr(0, colon);
}

std::string known_schemes() {
  std::string known = "known here: ";
  for (const BackendUsage& usage : kUsages) known += std::string(scheme_of(usage.url)) + ":, ";
  known.resize(known.size() - 2);
  return known;
}

// Null: no module has it.
Loaded module_of(std::string_view scheme) {
  const auto* usage = std::find_if(kUsages.begin(), kUsages.end(), [&](const BackendUsage& each) {
    return scheme_of(each.url) == scheme;
  });
  if (usage == kUsages.end() || usage->module == nullptr) return nullptr;
  auto module = load(usage->module);
  if (!module) return tl::make_unexpected(std::string(scheme) + ": " + module.error());
  return module;
}

tl::expected<const Row*, std::string> row_of(std::string_view url) {
  const std::string_view scheme = scheme_of(url);
  for (const Row& row : kRows) {
    if (row.scheme == scheme) return &row;
  }
  const auto module = module_of(scheme);
  if (!module) return tl::make_unexpected(module.error());
  if (*module == nullptr) {
    return tl::make_unexpected("'" + shown_url(url) + "' names no backend; " + known_schemes());
  }
  for (const Row& row : (*module)->rows) {
    if (row.scheme == scheme) return &row;
  }
  return tl::make_unexpected(std::string(scheme) + ": its module does not know it");
}

}  // namespace

std::span<const BackendUsage> backend_usages() { return kUsages; }

Wrong check_backend_url(std::string_view url) {
  const auto row = row_of(url);
  if (!row) return row.error();
  return (*row)->check((*row)->scheme, url.substr((*row)->scheme.size() + 1));
}

Served make_service(std::string_view url, EventLoop& loop) {
  const std::string_view scheme = scheme_of(url);
  const auto module = module_of(scheme);
  if (!module) return tl::make_unexpected(module.error());
  if (*module == nullptr || (*module)->serve == nullptr) {
    return tl::make_unexpected("'" + shown_url(url) +
                               "' is nothing that lockfs serves: it is elock://");
  }
  return (*module)->serve(url.substr(scheme.size() + 1), loop);
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

Prepared prepare_backend(std::string_view url) {
  const auto row = row_of(url);
  if (!row) return tl::make_unexpected(row.error());
  return (*row)->prepare((*row)->scheme, url.substr((*row)->scheme.size() + 1));
}

tl::expected<std::unique_ptr<LockBackend>, std::string> make_backend(std::string_view url,
                                                                     EventLoop& loop) {
  const Prepared prepared = prepare_backend(url);
  if (!prepared) return tl::make_unexpected(prepared.error());
  return (*prepared)(loop);
}

}  // namespace lockfs
