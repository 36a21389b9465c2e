// SPDX-License-Identifier: MIT
#pragma once
#include <spdlog/spdlog.h>

#include <csignal>
#include <functional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace lockfs {

/// A thread of a backend. The daemon's signals are the loop's: this one takes none but `own`, if
/// that is not 0. Throws std::system_error where the host has no more threads.
inline std::thread worker_thread(std::function<void()> body, int own = 0) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  if (own != 0) sigdelset(&all, own);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(body));
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

/// A thread "to" do something, that nobody joins. False, and an error in the log, where the host
/// has no more threads.
inline bool detached_thread(std::string_view to, std::function<void()> body) {
  try {
    worker_thread(std::move(body)).detach();
    return true;
  } catch (const std::system_error& error) {
    spdlog::error("there is no thread to {}: {}", to, error.what());
    return false;
  }
}

}  // namespace lockfs
