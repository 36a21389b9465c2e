// SPDX-License-Identifier: MIT
#include "core/event_loop.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

namespace lockfs {

EventLoop::EventLoop()
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (epoll_ < 0 || wake_ < 0) throw std::system_error(errno, std::generic_category(), "epoll");
  timers.set_now(Clock::now());
  watch(wake_, [this] {
    uint64_t count = 0;
    return read(wake_, &count, sizeof count) > 0;
  });
}

EventLoop::~EventLoop() {
  take_posted();
  close(wake_);
  close(epoll_);
}

void EventLoop::watch(int fd, std::function<bool()> ready) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
  watched_[fd] = std::move(ready);
}

void EventLoop::watch_writes(int fd, bool wanted) {
  epoll_event event{};
  event.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.fd = fd;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::unwatch(int fd) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  // It may be the source that runs just now.
  if (auto source = watched_.extract(fd)) unwatched_.push_back(std::move(source));
}

void EventLoop::post(std::function<void()> work) {
  auto* item = new Posted{std::move(work), posted_.load(std::memory_order_relaxed)};
  while (!posted_.compare_exchange_weak(item->next, item, std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
  const uint64_t one = 1;
  // A full counter wakes the loop as well.
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof one);
}

// True if there was any.
bool EventLoop::take_posted() {
  if (posted_.load(std::memory_order_relaxed) == nullptr) return false;
  Posted* newest = posted_.exchange(nullptr, std::memory_order_acquire);
  Posted* oldest = nullptr;
  while (newest != nullptr) {  // The list has the newest first; turn it round.
    Posted* next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest != nullptr) {
    const std::unique_ptr<Posted> item(oldest);
    oldest = item->next;
    item->work();
  }
  return true;
}

void EventLoop::poll_first(int fd, Duration poll_time) {
  polled_ = fd;
  poll_time_ = poll_time;
}

// Asks the polled source until it has had nothing for its time; true if it is still busy after
// as many turns as the other sources can wait for.
bool EventLoop::spin() {
  const auto source = watched_.find(polled_);
  if (source == watched_.end() || poll_time_ == Duration::zero()) return false;
  const std::function<bool()>& ready = source->second;  // Stays, whatever is watched meanwhile.
  int turns = 64;
  TimePoint now = Clock::now();
  for (TimePoint end = now + poll_time_; now < end && !stopped_; now = Clock::now()) {
    timers.advance(now);
    const bool had = take_posted() || ready();
    if (!unwatched_.empty()) return true;
    if (!had) {
      sched_yield();  // The caller may be waiting for this very core.
      continue;
    }
    if (--turns == 0) return true;
    end = now + poll_time_;
  }
  return false;
}

void EventLoop::wait(bool busy) {
  std::array<epoll_event, 16> events{};
  int timeout = busy ? 0 : -1;
  if (const auto next = timers.next(); next && !busy) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
    timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60000));
  }
  const int n = epoll_wait(epoll_, events.data(), events.size(), timeout);
  timers.advance(Clock::now());
  for (int i = 0; i < n && !stopped_; ++i) {
    const auto source = watched_.find(events.at(static_cast<size_t>(i)).data.fd);
    if (source != watched_.end()) source->second();
  }
}

void EventLoop::run() {
  while (!stopped_) {
    unwatched_.clear();
    take_posted();
    const bool busy = spin();
    take_posted();
    if (!busy && before_sleep_) before_sleep_();
    if (!stopped_) wait(busy);
  }
}

}  // namespace lockfs
