// SPDX-License-Identifier: MIT
#include "ctl/ready.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "ctl/failure.h"
#include "ctl/mount_point.h"
#include "ctl/question.h"
#include "ctl/words.h"

namespace lockfs::ctl {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr auto kLookAgain = milliseconds(20);
constexpr auto kLeastWait = milliseconds(250);  // What answers at once is ready, whatever the wait.
constexpr double kMaxWait = 365 * 86400.0;

// Whether the mount answers until then. Failure if there is none, or it has ended.
bool answers(const std::string& wanted, Clock::time_point end) {
  end = std::max(end, Clock::now() + kLeastWait);
  Question question([&] { return read_info(find_mount(wanted), "version"); });
  for (;;) {
    if (question.answer()) return true;
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    if (left.count() <= 0) return false;
    pollfd fd{question.fd(), POLLIN, 0};
    poll(&fd, 1, static_cast<int>(std::min<int64_t>(left.count(), 60000)));
  }
}

}  // namespace

ExitCode wait_until_ready(const std::string& wanted, const ReadyOptions& options) {
  std::signal(SIGCHLD, SIG_DFL);
  const auto wait = std::chrono::duration<double>(std::min(options.wait, kMaxWait));
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(wait);
  std::string trouble;
  do {
    try {
      if (answers(wanted, end)) return ExitCode::kOk;
      trouble = "the mount does not answer; is its daemon stopped?";
    } catch (const Failure& failure) {
      if (failure.code() == ExitCode::kUsage) throw;
      trouble = failure.what();
    }
    std::this_thread::sleep_for(kLookAgain);
  } while (Clock::now() < end);
  throw Failure(ExitCode::kUnavailable,
                fmt::format("not ready within {}: {}", duration_in_words(options.wait), trouble));
}

}  // namespace lockfs::ctl
