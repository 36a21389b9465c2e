// SPDX-License-Identifier: MIT
#include "fs/serve.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <iostream>

#include "backends/registry.h"
#include "fs/log.h"
#include "fs/options.h"
#include "fs/service_state.h"

namespace lockfs {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int fail(int status, const std::string& words) {
  std::cerr << "lockfs: " << words << "\n";
  return status;
}

}  // namespace

std::shared_ptr<CLI::App> serve_app() {
  auto app = std::make_shared<CLI::App>("serve elock's protocol, in the foreground", "serve");
  app->add_option("URL",
                  "elock://[HOST][:PORT][?OPTIONS]; without HOST on the loopback only; OPTIONS are "
                  "clients=N, idle=DUR, line=N, locks=N")
      ->required();
  return app;
}

int serve_command(int argc, const char* const* argv, int (*watch_signals)(EventLoop& loop)) {
  const auto app = serve_app();
  const CLI::Option* word = app->get_option("URL");
  if (argc < 2) return fail(kUsage, "serve what? lockfs serve " + word->get_description());
  std::string url;
  try {
    app->parse(argc, argv);
    url = word->as<std::string>();
  } catch (const CLI::CallForHelp&) {
    std::cout << app->name("lockfs serve")->help();
    return 0;
  } catch (const CLI::ParseError& error) {
    return fail(kUsage, error.what());
  }
  set_up_log({});
  EventLoop loop;
  const int signals = watch_signals(loop);
  const auto service = make_service(url, loop);
  if (!service) return fail(kFailed, service.error());
  spdlog::info("serving {} at {}", url.substr(0, url.find(':')), (*service)->place());
  tell_systemd("READY=1\nSTATUS=serving at " + (*service)->place());
  loop.run();
  tell_systemd("STOPPING=1");
  close(signals);
  return 0;
}

}  // namespace lockfs
