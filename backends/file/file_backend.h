// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/file/file_claims.h"
#include "core/event_loop.h"
#include "core/lock_backend.h"

namespace lockfs {

/// `file:DIR`: one file for each lock, shared by all mounts that see the directory. The kernel's
/// locks on its bytes are the claims, so a mount that dies has none. One thread does all that may
/// wait for the filesystem.
class FileBackend final : public LockBackend {
 public:
  /// `loop` outlives this.
  FileBackend(EventLoop& loop, std::string directory);
  ~FileBackend() override;
  FileBackend(const FileBackend&) = delete;
  FileBackend& operator=(const FileBackend&) = delete;

  /// Tries whether locks can be kept there: what is wrong, in words. Waits for the filesystem.
  static std::optional<std::string> try_directory(const std::string& directory);

  const LockTraits& traits() const override { return traits_; }
  std::vector<std::pair<std::string, std::string>> status() const override;
  std::string trouble() const override { return trouble_; }
  void start(ClaimEvents& events) override;
  void acquire(ClaimId claim, std::string_view lockspace, std::string_view name, Mode mode,
               bool now) override;
  void cancel(ClaimId claim) override;
  void release(ClaimId claim) override;
  void describe(ClaimId claim, const Presence& who) override;
  void inspect(QueryId query, std::string_view lockspace, std::string_view name) override;
  void list(QueryId query, std::string_view lockspace) override;
  void pin(QueryId query, std::string_view lockspace, std::string_view name, const Pin& pin,
           bool fresh) override;
  void unpin(QueryId query, std::string_view lockspace, std::string_view name) override;

 private:
  using Task = std::function<void(FileClaims&)>;
  class Events;
  void submit(Task task);
  void run();
  std::optional<std::deque<Task>> take_tasks();

  EventLoop& loop_;
  std::string directory_;
  LockTraits traits_;
  std::string trouble_;                 ///< As the thread said last.
  std::unique_ptr<Events> events_;      ///< Of the thread, to the loop.
  std::unique_ptr<FileClaims> claims_;  ///< The thread's.
  int wake_ = -1;
  std::mutex mutex_;
  std::deque<Task> tasks_;  ///< Under mutex_, as is stopped_.
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace lockfs
