// SPDX-License-Identifier: MIT
#include "ctl/options.h"

#include <strings.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "ctl/top_rows.h"

namespace lockfs::ctl {
namespace {

constexpr auto kName = "the lock: NAME, LOCKSPACE/NAME, or a path below the mount";

constexpr auto kExitCodes =
    "Exit codes: 0 all is well; 1 the answer is no (not acquired in time, not held, not pinned, "
    "not\n"
    "confirmed); 64 an option or a name is wrong or missing; 66 no such lockspace or lock; 69 no "
    "mount, or "
    "it\n"
    "does not answer, or the command cannot be started; 71 the system refused something; 75 a\n"
    "deadlock, a limit, or a backend out of reach: try again; 77 not allowed; 79 the lock was "
    "lost.\n"
    "`run` ends with the status of its command, 128 + N if signal N ended it.\n"
    "\n"
    "The mount is found by itself. If there are several, LOCKFS_MOUNT or --mount says which.\n"
    "NO_COLOR turns colours off.";

constexpr auto kRunNotes =
    "The letters are those of flock(1), and so are the exit codes: the status of COMMAND, 128 + N "
    "if\n"
    "signal N ended it, 1 (or -E) if the lock was not to be had in time. 79: the lock was lost. "
    "Of a\n"
    "signal that lockctl got as well, as by Ctrl-C, it dies itself: so a script around it ends.\n"
    "\n"
    "COMMAND finds LOCKSPACE/NAME in LOCKFS_LOCK, the fencing token in LOCKFS_TOKEN, and, without "
    "-o,\n"
    "the number of the lock's descriptor in LOCKFS_FD. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 "
    "and\n"
    "SIGUSR2 are passed on to it.\n"
    "\n"
    "COMMAND inherits the descriptor, and so do the processes that it starts: the lock is held "
    "until\n"
    "all of them have ended, even if lockctl is killed. With -o they do not, and the lock falls "
    "with\n"
    "lockctl; if lockctl is killed, COMMAND gets SIGTERM, unless it is setuid, as sudo is.";

// NaN passes a check of any range.
const CLI::Validator kNumber(
    [](std::string& text) {
      return std::isnan(std::strtod(text.c_str(), nullptr)) ? text + " is no number"
                                                            : std::string();
    },
    "");

const CLI::Validator kSeconds(
    [](std::string& text) {
      char* end = nullptr;
      const bool seconds = std::strtod(text.c_str(), &end) >= 0 && !text.empty() && *end == '\0';
      return seconds ? std::string() : "'" + text + "' is not a number of seconds, 0 or more";
    },
    "");

const CLI::Validator kSlots(
    [](std::string& text) {
      const bool digits = text.find_first_not_of("0123456789") == std::string::npos;
      const bool slots = digits && text.find_first_not_of('0') != std::string::npos;
      return slots ? std::string() : "'" + text + "' is not a number of slots, 1 or more";
    },
    "");

const CLI::Validator kOneLine(
    [](std::string& text) {
      return text.find('\n') == std::string::npos ? std::string() : std::string("it is one line");
    },
    "");

// The first line of a help: a command is needed, and options that are needed are named.
class UsageLine : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    if (app->get_parent() == nullptr) return "Usage: " + name + " [OPTIONS] COMMAND\n";
    std::string out = Formatter::make_usage(app, name);
    constexpr std::string_view kOptions = "[OPTIONS]";
    size_t at = out.find(kOptions);
    if (at == std::string::npos) return out;
    at += kOptions.size();
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_positional() || !option->get_required()) continue;
      const std::string needed = " " + option->get_name() + " " + option->get_type_name();
      out.insert(at, needed);
      at += needed.size();
    }
    return out;
  }
};

void add_list(CLI::App& app, ListOptions& options) {
  CLI::App& list = *app.add_subcommand("list", "List the locks that are held");
  list.add_option("lockspace", options.lockspace, "only this lockspace")
      ->type_name("")
      ->option_text("LOCKSPACE");
  list.add_flag("-w,--waiting", options.waiting, "only locks that somebody waits for");
  list.add_flag("-m,--mine", options.mine, "only what your user holds or waits for");
  list.add_option("-u,--user", options.user, "only what this user holds or waits for")
      ->type_name("USER");
  list.add_option("--mode", options.mode, "only locks held in this mode")
      ->type_name("MODE")
      ->check(
          CLI::IsMember({"NL", "CR", "CW", "PR", "PW", "EX", "SLOT", "free"}, CLI::ignore_case));
  list.add_flag("-a,--all", options.all, "pinned names that nobody holds, too");
  list.add_option("-s,--sort", options.sort, "what to sort by")
      ->type_name("KEY")
      ->check(CLI::IsMember(sort_keys()))
      ->capture_default_str();
  list.add_flag("-r,--reverse", options.reverse, "the other way round");
  list.add_flag("--no-headings", options.no_headings, "without the line of headings");
  list.add_flag("--json", options.json, "all that the mount tells, for programs");
}

void add_show(CLI::App& app, ShowOptions& options) {
  CLI::App& show = *app.add_subcommand(
      "show", "Show all about one lock: who holds it, who has it open, what to do next");
  show.add_option("name", options.name, kName)->required()->type_name("")->option_text("NAME");
  show.add_flag("--json", options.json, "for programs");
  show.footer(
      "Every process that still has the descriptor open is shown, and from whom it inherited it:\n"
      "a lock is held until the last of them has closed it. Root sees all processes, others only\n"
      "their own. The exit code is 1 when nobody holds the lock.");
}

void add_waits(CLI::App& app, WaitsOptions& options) {
  CLI::App& waits =
      *app.add_subcommand("waits", "Show who waits for whom, as a tree; deadlocks are marked");
  waits.add_option("name", options.name, "only what has to do with this lock")
      ->type_name("")
      ->option_text("NAME");
  auto* dot = waits.add_flag("--dot", options.dot, "a graph for dot(1) of Graphviz");
  waits.add_flag("--json", options.json, "for programs")->excludes(dot);
}

void add_top(CLI::App& app, TopOptions& options) {
  std::vector<std::string> headings;
  for (const TopColumn& column : top_columns()) headings.emplace_back(column.heading);
  CLI::App& top = *app.add_subcommand(
      "top", "Watch the locks live, those that most wait for first; ? shows the keys");
  top.add_option("lockspace", options.lockspace, "only this lockspace")
      ->type_name("")
      ->option_text("LOCKSPACE");
  top.add_option("-d,--delay", options.delay, "seconds between two looks")
      ->type_name("SECS")
      ->check(CLI::Range(0.1, 3600.0))
      ->check(kNumber)
      ->capture_default_str();
  top.add_option("-s,--sort", options.sort, "the column to begin with, by its heading")
      ->type_name("COLUMN")
      ->check(CLI::IsMember(headings, CLI::ignore_case))
      ->capture_default_str();
}

void add_run(CLI::App& app, RunOptions& options) {
  CLI::App& run = *app.add_subcommand("run", "Run a command while it holds a lock, as flock(1)");
  auto* shared = run.add_flag("-s,--shared", options.shared, "a shared lock (PR)");
  auto* exclusive = run.add_flag("-x,-e,--exclusive")
                        ->description("an exclusive lock (EX); so it is unless told");
  shared->excludes(exclusive);
  run.add_option("-m,--mode", options.acquire.mode, "a mode of the DLM, or SLOT")
      ->type_name("MODE")
      ->transform(CLI::IsMember({"NL", "CR", "CW", "PR", "PW", "EX", "SLOT"}, CLI::ignore_case))
      ->excludes(shared)
      ->excludes(exclusive);
  run.add_option("--size", options.acquire.size, "with -m SLOT: so many may hold it at a time")
      ->type_name("N")
      ->check(kSlots);
  run.add_flag("-n,--nb,--nonblock", options.acquire.nonblock, "do not wait");
  run.add_option("-w,--wait,--timeout", options.acquire.wait,
                 "wait at most that long; 0 is -n, fractions are fine")
      ->type_name("SECS")
      ->check(kSeconds);
  run.add_option("-E,--conflict-exit-code", options.conflict_exit_code,
                 "the exit code if it is not to be had in time")
      ->type_name("CODE")
      ->check(CLI::Range(0, 255))
      ->capture_default_str();
  run.add_flag("-o,--close", options.close, "COMMAND does not inherit the descriptor");
  run.add_flag("-F,--no-fork", options.no_fork, "lockctl becomes COMMAND");
  run.add_option("-c,--command", options.shell_command, "a command for the shell, instead of words")
      ->type_name("COMMAND");
  run.add_option("--onlost", options.onlost,
                 "what becomes of COMMAND and all that it has started (with -F: of COMMAND alone) "
                 "when the lock is lost")
      ->type_name("WHAT")
      ->check(CLI::IsMember({"kill", "term", "none"}))
      ->capture_default_str();
  run.add_option("--ttl", options.acquire.ttl,
                 "the lock is lost that long after the grant, as in 90s or 5m, unless COMMAND "
                 "writes `renew` to the descriptor LOCKFS_FD")
      ->type_name("DURATION");
  run.add_option("--note", options.acquire.note, "shown to whoever looks at the lock")
      ->type_name("TEXT")
      ->check(kOneLine);
  auto* quiet =
      run.add_flag("-q,--quiet", options.quiet, "say nothing if it is not to be had in time");
  run.add_flag("--verbose", options.verbose, "say on stderr how long it took to get the lock")
      ->excludes(quiet);
  run.add_option("name", options.name, kName)->required()->type_name("")->option_text("NAME");
  run.add_option("command", options.command, "the command and its arguments")
      ->type_name("")
      ->option_text("-- COMMAND ...");
  run.footer(kRunNotes);
}

void add_break(CLI::App& app, BreakOptions& options) {
  CLI::App& command = *app.add_subcommand(
      "break", "Take a lock away from all who hold it (root, or the owner of the lockspace)");
  command.add_option("name", options.name, kName)->required()->type_name("")->option_text("NAME");
  command.add_option("--why", options.why, "the reason: for the log, and for who loses it")
      ->required()
      ->type_name("TEXT");
  command.add_flag("-y,--yes", options.yes, "do not ask");
  command.footer(
      "The holder is told that its lock is lost, and the next one has it at once. Until the "
      "holder\n"
      "listens it goes on, beside the next one: end its process first, if you can.\n"
      "It asks first on a terminal, and ends with 1 if the answer is no; without one --yes must "
      "be\n"
      "there, or it ends with 64.");
}

void add_control(CLI::App& app, PinOptions& pin, NumberOptions& number) {
  const auto add_name = [&](CLI::App* command) {
    command->add_option("name", pin.name, kName)->required()->type_name("")->option_text("NAME");
  };
  const auto add_lockspace = [&](CLI::App* command) {
    command->add_option("-l,--lockspace", number.lockspace, "in which lockspace")
        ->type_name("LOCKSPACE")
        ->capture_default_str();
  };
  add_name(app.add_subcommand("pin", "Keep a name visible while nobody holds it"));
  add_name(app.add_subcommand("unpin", "Let a pinned name go when nobody holds it"));
  CLI::App* alloc = app.add_subcommand("alloc", "Allocate a numbered lock, and print its number");
  alloc->add_option("id", number.id, "this number; else the lowest that is free")
      ->type_name("")
      ->option_text("ID");
  add_lockspace(alloc);
  CLI::App* free = app.add_subcommand("free", "Give an allocated number back");
  free->add_option("id", number.id, "the number")->required()->type_name("")->option_text("ID");
  add_lockspace(free);
}

}  // namespace

std::unique_ptr<CLI::App> make_app(Arguments& arguments) {
  auto app = std::make_unique<CLI::App>(
      "lockctl: who holds which lock of a lockfs, who waits, and what to do about it.", "lockctl");
  app->formatter(std::make_shared<UsageLine>());
  app->fallthrough();  // --mount may stand behind the command as well.
  app->add_option("--mount", arguments.mount, "the directory where lockfs is mounted")
      ->type_name("DIR");
  app->add_flag("-V,--version", arguments.version, "print the version");
  add_list(*app, arguments.list);
  add_show(*app, arguments.show);
  add_waits(*app, arguments.waits);
  add_top(*app, arguments.top);
  add_run(*app, arguments.run);
  add_break(*app, arguments.breaks);
  add_control(*app, arguments.pin, arguments.number);
  CLI::App* events = app->add_subcommand("events", "Print what happens, as it happens");
  events->add_flag("--json", arguments.events.json, "for programs: a line of JSON an event");
  CLI::App* ready = app->add_subcommand("ready", "Wait until the mount answers; for scripts");
  ready->add_option("-w,--wait", arguments.ready.wait, "wait at most that long")
      ->type_name("SECS")
      ->check(kSeconds)
      ->capture_default_str();
  app->footer(kExitCodes);  // Last: commands would inherit it.
  app->require_subcommand(0, 1);
  return app;
}

}  // namespace lockfs::ctl
