// SPDX-License-Identifier: MIT
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"

namespace lockfs {

/// A text that grows with the locks.
class LongText {
 public:
  virtual ~LongText() = default;
  /// Finds out what there is to be written; calls `ready` then, now or later.
  virtual void begin(std::function<void()> ready) = 0;
  /// Adds the next piece; false: that was all.
  virtual bool add_to(std::string& text) = 0;
};

/// Makes long texts, one after the other, each a while at a time with requests in between: however
/// many are asked for, nobody waits for long, and only one takes room. Those who ask for the same
/// before it is begun get the same.
class LongTexts {
 public:
  using Done = std::function<void(const std::string& text)>;

  explicit LongTexts(EventLoop& loop) : loop_(loop) {}
  ~LongTexts() { loop_.timers.cancel(timer_); }
  LongTexts(const LongTexts&) = delete;
  LongTexts& operator=(const LongTexts&) = delete;

  /// Of the same `key` are the same texts.
  void make(const std::string& key, const std::function<std::unique_ptr<LongText>()>& make_text,
            const Done& done);

 private:
  struct Job {
    std::string key;
    std::unique_ptr<LongText> text;
    std::vector<Done> done;
    std::string made;
  };
  void begin();
  void go_on_soon();
  void go_on();
  void end();

  EventLoop& loop_;
  std::deque<Job> jobs_;  ///< The first is being made.
  TimerId timer_ = TimerId::kNone;
};

}  // namespace lockfs
