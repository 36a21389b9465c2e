// SPDX-License-Identifier: MIT
#include "ctl/control.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "ctl/failure.h"
#include "ctl/lock_path.h"
#include "ctl/picture.h"
#include "ctl/words.h"
#include "system/open_file.h"

namespace lockfs::ctl {
namespace {

// Of a command that .ctl has understood and refused.
ExitCode refused(int error) {
  // EOPNOTSUPP: another host's mount holds it, and it is broken there.
  if (error == ENOENT || error == EEXIST || error == EOPNOTSUPP) return ExitCode::kNo;
  return exit_code_of(error);
}

std::string answer_of(int fd) {
  std::array<char, 65536> text{};
  const ssize_t n = pread(fd, text.data(), text.size(), 0);
  std::string answer(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
  while (!answer.empty() && answer.back() == '\n') answer.pop_back();
  return answer;
}

// "error: break: only root ..."
std::string without_lead(std::string words) {
  constexpr std::string_view kLead = "error: ";
  if (words.starts_with(kLead)) words.erase(0, kLead.size());
  const size_t colon = words.find(": ");
  const bool verb = colon != std::string::npos && words.find(' ') > colon;
  return verb ? words.substr(colon + 2) : words;
}

bool same_holders(const Picture& a, const Picture& b) {
  if (a.holders.size() != b.holders.size() || a.holders_total != b.holders_total) return false;
  for (size_t i = 0; i < a.holders.size(); ++i) {
    const bool same =
        a.holders[i].pid == b.holders[i].pid && a.holders[i].since == b.holders[i].since;
    if (!same) return false;
  }
  return true;
}

// Asks the person at the terminal.
bool confirm(const std::string& question) {
  std::cerr << question << " [y/N] ";
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

// Whether it may be broken; says why not.
bool may_break(const MountPoint& mount, const LockPath& lock) {
  const Picture picture = read_lock(mount, lock);
  if (!picture.held()) {
    std::cerr << "lockctl: " << lock.shown() << " is not held: there is nothing to break\n";
    return false;
  }
  const std::string who = holders_in_words(picture);
  if (isatty(STDIN_FILENO) == 0) {
    throw Failure(ExitCode::kUsage,
                  fmt::format("{} is held {}; nobody can be asked without a terminal: --yes breaks "
                              "it unasked",
                              lock.shown(), who));
  }
  std::cerr << fmt::format(
      "{} is held {}. Its holder is told that it has lost the lock; until it "
      "listens it goes on, beside the next one.\n",
      lock.shown(), who);
  if (!confirm("Break it?")) {
    std::cerr << "lockctl: nothing was broken\n";
    return false;
  }
  const Picture now = read_lock(mount, lock);
  if (same_holders(picture, now)) return true;
  std::cerr << fmt::format("lockctl: {} has another holder by now, {}: nothing was broken\n",
                           lock.shown(), holders_in_words(now));
  return false;
}

void check_lockspace(const std::string& name) {
  if (is_file_name(name)) return;
  throw Failure(ExitCode::kUsage, fmt::format("'{}' does not name a lockspace", printable(name)));
}

}  // namespace

std::string command(const MountPoint& mount, const std::string& lockspace, const std::string& text,
                    const std::string& what) {
  const std::string path = mount.path + "/" + lockspace + "/.ctl";
  const OpenFile file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() < 0) {
    const int error = errno;
    fail_if_ended(mount, what, error);
    need_lockspace(mount, what, lockspace);
    throw Failure(exit_code_of(error),
                  fmt::format("{}: {}: {}", what, printable(path), std::strerror(error)));
  }
  const ssize_t n = write(file.get(), text.data(), text.size());
  const int error = n < 0 ? errno : 0;
  std::string answer = answer_of(file.get());
  if (error == 0) return answer;
  fail_if_ended(mount, what, error);
  const std::string words = answer.empty() ? std::strerror(error) : without_lead(answer);
  throw Failure(refused(error), fmt::format("{}: {}", what, printable(words)));
}

ExitCode break_lock(const MountPoint& mount, const BreakOptions& options) {
  const LockPath lock = parse_lock_path(mount, options.name);
  if (!options.yes && !may_break(mount, lock)) return ExitCode::kNo;
  const std::string answer =
      command(mount, lock.lockspace,
              fmt::format("break {} {}", in_quotes(lock.file), in_quotes(printable(options.why))),
              lock.shown());
  std::cout << fmt::format("{} is broken; {} had it\n", lock.shown(), printable(answer));
  return ExitCode::kOk;
}

ExitCode pin(const MountPoint& mount, const PinOptions& options) {
  const LockPath lock = parse_lock_path(mount, options.name);
  command(mount, lock.lockspace, "pin " + in_quotes(lock.file), lock.shown());
  return ExitCode::kOk;
}

ExitCode unpin(const MountPoint& mount, const PinOptions& options) {
  const LockPath lock = parse_lock_path(mount, options.name);
  command(mount, lock.lockspace, "unpin " + in_quotes(lock.file), lock.shown());
  return ExitCode::kOk;
}

ExitCode allocate(const MountPoint& mount, const NumberOptions& options) {
  const std::string id = options.id ? " " + in_quotes(*options.id) : "";
  check_lockspace(options.lockspace);
  const std::string number = printable(command(mount, options.lockspace, "allocate" + id, "alloc"));
  std::cout << number << std::endl;
  if (!std::cout) {
    throw Failure(ExitCode::kSystem,
                  fmt::format("{0} is allocated, but could not be printed; lockctl free -l {1} {0} "
                              "gives it back",
                              number, printable(options.lockspace)));
  }
  return ExitCode::kOk;
}

ExitCode free_number(const MountPoint& mount, const NumberOptions& options) {
  check_lockspace(options.lockspace);
  command(mount, options.lockspace, "free " + in_quotes(options.id.value_or("")), "free");
  return ExitCode::kOk;
}

}  // namespace lockfs::ctl
