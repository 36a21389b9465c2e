// SPDX-License-Identifier: MIT
#include "backends/file/file_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>

#include "backends/worker_thread.h"
#include "core/processes.h"

namespace lockfs {
namespace {

std::string random_hex() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

std::string this_node() { return fmt::format("{}:{}:{}", host_name(), getpid(), random_hex()); }

}  // namespace

// Takes the thread's events to the loop. What is still under way when the backend ends is dropped.
class FileBackend::Events final : public ClaimEvents {
 public:
  Events(FileBackend& backend, ClaimEvents& table)
      : backend_(backend), table_(std::make_shared<ClaimEvents*>(&table)) {}
  ~Events() override { *table_ = nullptr; }  // On the loop's thread.

  void granted(ClaimId claim, Mode mode, TokenBlock tokens) override {
    post([=](ClaimEvents& table) { table.granted(claim, mode, tokens); });
  }
  void failed(ClaimId claim, LockErrc why) override {
    post([=](ClaimEvents& table) { table.failed(claim, why); });
  }
  void contended(ClaimId claim) override {
    post([=](ClaimEvents& table) { table.contended(claim); });
  }
  void lost(ClaimId claim, std::string_view why) override {
    post([claim, why = std::string(why)](ClaimEvents& table) { table.lost(claim, why); });
  }
  void reach_changed() override {
    post([&backend = backend_, trouble = backend_.claims_->trouble()](ClaimEvents& table) {
      backend.trouble_ = trouble;
      table.reach_changed();
    });
  }
  void answered(QueryId query, LockErrc result, std::vector<RemoteLock> locks) override {
    post([query, result, locks = std::move(locks)](ClaimEvents& table) {
      table.answered(query, result, locks);
    });
  }

 private:
  void post(std::function<void(ClaimEvents&)> event) {
    backend_.loop_.post([table = table_, event = std::move(event)] {
      if (*table != nullptr) event(**table);
    });
  }
  FileBackend& backend_;
  std::shared_ptr<ClaimEvents*> table_;
};

FileBackend::FileBackend(EventLoop& loop, std::string directory)
    : loop_(loop), directory_(std::move(directory)) {
  traits_.name = "file";
  traits_.fifo = false;
  traits_.slots = false;
  traits_.other_nodes = true;
  traits_.keeps_pins = true;
  traits_.value_block = false;
}

std::vector<std::pair<std::string, std::string>> FileBackend::status() const {
  return {{"directory", directory_}, {"state", trouble_.empty() ? "up" : trouble_}};
}

FileBackend::~FileBackend() {
  if (thread_.joinable()) {
    {
      const std::lock_guard guard(mutex_);
      stopped_ = true;
    }
    submit([](FileClaims&) {});
    thread_.join();
  }
  if (wake_ >= 0) close(wake_);
}

void FileBackend::start(ClaimEvents& events) {
  events_ = std::make_unique<Events>(*this, events);
  wake_ = eventfd(0, EFD_CLOEXEC);
  thread_ = worker_thread([this] { run(); });
}

void FileBackend::submit(Task task) {
  {
    const std::lock_guard guard(mutex_);
    tasks_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof one);
}

// None when the end has come. There may be nothing to do: a task is seen before its wake-up.
std::optional<std::deque<FileBackend::Task>> FileBackend::take_tasks() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = read(wake_, &count, sizeof count);
  const std::lock_guard guard(mutex_);
  if (stopped_) return std::nullopt;
  return std::exchange(tasks_, {});
}

void FileBackend::run() {
  claims_ = std::make_unique<FileClaims>(directory_, this_node(), *events_);
  while (true) {
    std::array<pollfd, 2> ready{{{wake_, POLLIN, 0}, {claims_->watch_fd(), POLLIN, 0}}};
    int timeout = -1;
    if (const auto next = claims_->next_retry()) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(*next - FileClaims::Clock::now());
      timeout = static_cast<int>(std::max<int64_t>(left.count(), 0));
    }
    ::poll(ready.data(), ready.size(), timeout);
    if ((ready[0].revents & POLLIN) != 0) {
      const auto tasks = take_tasks();
      if (!tasks) return;
      for (const Task& task : *tasks) task(*claims_);
    }
    if ((ready[1].revents & POLLIN) != 0) claims_->changed();
    claims_->retry();
  }
}

void FileBackend::acquire(ClaimId claim, std::string_view lockspace, std::string_view name,
                          Mode mode, bool now) {
  submit([=, space = std::string(lockspace), name = std::string(name)](FileClaims& claims) {
    claims.acquire(claim, space, name, mode, now);
  });
}
void FileBackend::cancel(ClaimId claim) {
  submit([=](FileClaims& claims) { claims.cancel(claim); });
}
void FileBackend::release(ClaimId claim) {
  submit([=](FileClaims& claims) { claims.release(claim); });
}
void FileBackend::describe(ClaimId claim, const Presence& who) {
  submit([=](FileClaims& claims) { claims.describe(claim, who); });
}
void FileBackend::inspect(QueryId query, std::string_view lockspace, std::string_view name) {
  submit([=, space = std::string(lockspace), name = std::string(name)](FileClaims& claims) {
    claims.inspect(query, space, name);
  });
}
void FileBackend::list(QueryId query, std::string_view lockspace) {
  submit([=, space = std::string(lockspace)](FileClaims& claims) { claims.list(query, space); });
}
void FileBackend::pin(QueryId query, std::string_view lockspace, std::string_view name,
                      const Pin& pin, bool fresh) {
  submit([=, space = std::string(lockspace), name = std::string(name)](FileClaims& claims) {
    claims.pin(query, space, name, pin, fresh);
  });
}
void FileBackend::unpin(QueryId query, std::string_view lockspace, std::string_view name) {
  submit([=, space = std::string(lockspace), name = std::string(name)](FileClaims& claims) {
    claims.unpin(query, space, name);
  });
}

std::optional<std::string> FileBackend::try_directory(const std::string& directory) {
  const auto because = [&](const std::string& what) {
    return fmt::format("file:{}: {}: {}", directory, what, std::strerror(errno));
  };
  struct stat attr {};
  if (stat(directory.c_str(), &attr) != 0) return because("cannot use the directory");
  if (!S_ISDIR(attr.st_mode)) return fmt::format("file:{}: it is no directory", directory);
  const std::string probe = directory + "/.lockfs-probe-" + random_hex();
  const int one = open(probe.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (one < 0) return because("cannot make files there");
  const int two = open(probe.c_str(), O_RDWR | O_CLOEXEC);
  std::optional<std::string> wrong;
  if (LockText(one).next_tokens().end == 0) {
    wrong = because("cannot write there");
  } else if (set_bytes(one, ByteLock::kWrite, kModeByteEx, kModeByteEx) != LockErrc::kOk) {
    wrong = because("its filesystem does not lock (fcntl F_OFD_SETLK)");
  } else if (set_bytes(two, ByteLock::kWrite, kModeByteEx, kModeByteEx) != LockErrc::kWouldBlock) {
    wrong = fmt::format("file:{}: its filesystem grants one lock twice", directory);
  }
  close(two);
  close(one);
  unlink(probe.c_str());
  return wrong;
}

}  // namespace lockfs
