// SPDX-License-Identifier: MIT
#pragma once
#include <csignal>
#include <functional>
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

}  // namespace lockfs
