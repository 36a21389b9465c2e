// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "ctl/command_line.h"
#include "ctl/exit_code.h"
#include "ctl/failure.h"
#include "ctl/options.h"
#include "ctl/output.h"
#include "ctl/words.h"
#include "usage/usage.h"

#ifndef LOCKFS_VERSION
#error LOCKFS_VERSION comes from the build
#endif

namespace lockfs::ctl {
namespace {

using Command = int (*)(const Arguments& arguments);

// The mount that has this lock.
MountPoint mount_of(const Arguments& arguments, std::string& name) {
  name = with_real_directory(name);
  return find_mount(arguments.mount, name);
}

template <auto command, auto options>
int of_lock(const Arguments& arguments) {
  auto chosen = arguments.*options;
  const MountPoint mount = mount_of(arguments, chosen.name);
  return static_cast<int>(command(mount, chosen));
}

template <auto command, auto options>
int of_mount(const Arguments& arguments) {
  return static_cast<int>(command(find_mount(arguments.mount), arguments.*options));
}

const std::map<std::string, Command>& commands() {
  static const std::map<std::string, Command> all = {
      {"list", of_mount<list_locks, &Arguments::list>},
      {"show", of_lock<show_lock, &Arguments::show>},
      {"waits", of_lock<show_waits, &Arguments::waits>},
      {"top", of_mount<show_top, &Arguments::top>},
      {"run", of_lock<run_command, &Arguments::run>},
      {"break", of_lock<break_lock, &Arguments::breaks>},
      {"pin", of_lock<pin, &Arguments::pin>},
      {"unpin", of_lock<unpin, &Arguments::pin>},
      {"alloc", of_mount<allocate, &Arguments::number>},
      {"free", of_mount<free_number, &Arguments::number>},
      {"events", of_mount<show_events, &Arguments::events>},
      {"ready",
       [](const Arguments& arguments) {
         return static_cast<int>(wait_until_ready(arguments.mount, arguments.ready));
       }},
  };
  return all;
}

// A lock's file must not become the command's standard output: whatever it says would be written to
// the mount.
void open_standard_files() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  if (fd >= 0) close(fd);
}

int run(int argc, char** argv) {
  Arguments arguments;
  const auto app = make_app(arguments);
  if (const auto text = printed_usage({*app}, argc, argv)) {
    std::cout << *text;
    return static_cast<int>(ExitCode::kOk);
  }
  const CommandLine line = cut(*app, argc, argv);
  arguments.run.command = line.command;
  try {
    app->parse(std::vector<std::string>(line.ours.rbegin(), line.ours.rend()));  // As CLI11 has it.
  } catch (const CLI::CallForHelp& help) {
    return app->exit(help);
  } catch (const CLI::ParseError& error) {
    const auto chosen = app->get_subcommands();
    const std::string command = chosen.empty() ? "" : " " + chosen.front()->get_name();
    throw Failure(ExitCode::kUsage,
                  std::string(error.what()) + "; see lockctl" + command + " --help");
  }
  if (arguments.version) {
    std::cout << "lockctl " LOCKFS_VERSION "\n";
    return static_cast<int>(ExitCode::kOk);
  }
  const auto chosen = app->get_subcommands();
  if (chosen.empty()) throw Failure(ExitCode::kUsage, "which command? See lockctl --help");
  return commands().at(chosen.front()->get_name())(arguments);
}

}  // namespace
}  // namespace lockfs::ctl

int main(int argc, char** argv) {
  using namespace lockfs::ctl;
  open_standard_files();
  setlocale(LC_ALL, "");
  if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");  // Names are UTF-8 whatever the locale.
  try {
    const int status = run(argc, argv);
    finish_output();
    return status;
  } catch (const Failure& failure) {
    std::cerr << "lockctl: " << failure.what() << "\n";
    return static_cast<int>(failure.code());
  } catch (const std::exception& error) {
    std::cerr << "lockctl: " << printable(error.what()) << "\n";
    return static_cast<int>(ExitCode::kSystem);
  }
}
