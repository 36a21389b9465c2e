// SPDX-License-Identifier: MIT
#include "fs/serve.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <iostream>

#include "backends/registry.h"
#include "fs/log.h"
#include "fs/options.h"

namespace lockfs {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int fail(int status, const std::string& words) {
  std::cerr << "lockfs: " << words << "\n";
  return status;
}

}  // namespace

int serve_command(const std::vector<std::string>& words, int (*watch_signals)(EventLoop& loop)) {
  if (words.size() != 1) {
    return fail(kUsage,
                "serve what? lockfs serve elock://[HOST][:PORT][?clients=N,idle=DUR,line=N]; "
                "without HOST on the loopback only");
  }
  set_up_log({});
  EventLoop loop;
  const int signals = watch_signals(loop);
  const auto service = make_service(words.front(), loop);
  if (!service) return fail(kFailed, service.error());
  spdlog::info("serving {} at {}", words.front().substr(0, words.front().find(':')),
               (*service)->place());
  loop.run();
  close(signals);
  return 0;
}

}  // namespace lockfs
