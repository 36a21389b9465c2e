// SPDX-License-Identifier: MIT
#include "fs/long_texts.h"

#include <algorithm>
#include <utility>

namespace lockfs {
namespace {

constexpr auto kWhile = std::chrono::microseconds(200);

}  // namespace

void LongTexts::make(const std::string& key,
                     const std::function<std::unique_ptr<LongText>()>& make_text,
                     const Done& done) {
  // The first has begun.
  const auto waits = std::find_if(jobs_.begin() + (jobs_.empty() ? 0 : 1), jobs_.end(),
                                  [&](const Job& job) { return job.key == key; });
  if (waits != jobs_.end()) return waits->done.push_back(done);
  jobs_.push_back({key, make_text(), {done}, {}});
  if (jobs_.size() == 1) begin();
}

void LongTexts::begin() {
  jobs_.front().text->begin([this] { go_on_soon(); });
}

// What is due now is all done before the next request.
void LongTexts::go_on_soon() {
  timer_ =
      loop_.timers.schedule(loop_.timers.now() + std::chrono::nanoseconds(1), [this] { go_on(); });
}

void LongTexts::go_on() {
  Job& job = jobs_.front();
  const TimePoint end_of_turn = Clock::now() + kWhile;
  while (job.text->add_to(job.made)) {
    if (Clock::now() >= end_of_turn) return go_on_soon();
  }
  end();
}

void LongTexts::end() {
  const Job job = std::move(jobs_.front());
  jobs_.pop_front();
  if (!jobs_.empty()) begin();
  for (const Done& done : job.done) done(job.made);
}

}  // namespace lockfs
