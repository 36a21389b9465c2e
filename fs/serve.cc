// SPDX-License-Identifier: MIT
#include "fs/serve.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <iostream>

#include "fs/log.h"
#include "fs/options.h"

#ifdef LOCKFS_ELOCK
#include "backends/elock/elock_server.h"
#include "backends/elock/elock_url.h"
#endif

namespace lockfs {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int fail(int status, const std::string& words) {
  std::cerr << "lockfs: " << words << "\n";
  return status;
}

}  // namespace

int serve_command(const std::vector<std::string>& words,
                  [[maybe_unused]] int (*watch_signals)(EventLoop& loop)) {
  constexpr std::string_view kScheme = "elock:";
  if (words.size() != 1 || !words.front().starts_with(kScheme)) {
    return fail(kUsage,
                "serve what? lockfs serve elock://[HOST][:PORT][?clients=N,idle=DUR,line=N]; "
                "without HOST on the loopback only");
  }
#ifdef LOCKFS_ELOCK
  const auto url = elock::parse_url(std::string_view(words.front()).substr(kScheme.size()), true);
  if (!url) return fail(kUsage, url.error());
  set_up_log({});
  EventLoop loop;
  const int signals = watch_signals(loop);
  const auto server = elock::Server::open(loop, url->server, url->limits);
  if (!server) return fail(kFailed, server.error());
  spdlog::info("serving elock at {}", url->server.words());
  loop.run();
  close(signals);
  return 0;
#else
  return fail(kFailed, "this lockfs was built without OpenSSL, and serves nothing");
#endif
}

}  // namespace lockfs
