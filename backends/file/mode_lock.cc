// SPDX-License-Identifier: MIT
#include "backends/file/mode_lock.h"

#include <random>

namespace lockfs {
namespace {

// Another CW may have the same byte, or a PR all of them: then no other byte can be had either.
constexpr int kOwnByteTries = 8;

int64_t some_cw_byte() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  return std::uniform_int_distribution<int64_t>(kModeBytesCw, kModeBytesCwEnd)(random);
}

}  // namespace

ModeLock::Bytes ModeLock::bytes_of(Mode mode) {
  using enum ByteLock;
  switch (mode) {
    case Mode::kNL: return {kNone, kNone, CwBytes::kNone};
    case Mode::kCR: return {kRead, kNone, CwBytes::kNone};
    case Mode::kCW: return {kRead, kRead, CwBytes::kOwn};
    case Mode::kPR: return {kRead, kRead, CwBytes::kAll};
    case Mode::kPW: return {kRead, kWrite, CwBytes::kNone};
    case Mode::kEX: return {kWrite, kNone, CwBytes::kNone};
  }
  return {kWrite, kWrite, CwBytes::kAll};
}

LockErrc ModeLock::convert(Mode to) {
  const Bytes before = bytes_of(mode_);
  const Bytes after = bytes_of(to);
  const auto set = [this](ByteLock how, int64_t byte) { return set_bytes(fd_, how, byte, byte); };
  // What becomes stronger, then what becomes weaker.
  LockErrc result = LockErrc::kOk;
  if (after.ex > before.ex) result = set(after.ex, kModeByteEx);
  if (result != LockErrc::kOk) return result;
  if (after.pw > before.pw) result = set(after.pw, kModeBytePw);
  if (result == LockErrc::kOk && after.cw != CwBytes::kNone && after.cw != before.cw) {
    result = take_cw(after.cw);
    if (result != LockErrc::kOk && after.pw > before.pw) set(before.pw, kModeBytePw);
  }
  if (result != LockErrc::kOk) {
    if (after.ex > before.ex) set(before.ex, kModeByteEx);
    return result;
  }
  // A byte that cannot be given back (no memory) excludes more than it should, until the close.
  if (after.cw != before.cw) leave_cw(after.cw);
  if (after.pw < before.pw) set(after.pw, kModeBytePw);
  if (after.ex < before.ex) set(after.ex, kModeByteEx);
  mode_ = to;
  return LockErrc::kOk;
}

LockErrc ModeLock::take_cw(CwBytes how) {
  if (how == CwBytes::kOwn) return take_own_cw();
  return set_bytes(fd_, ByteLock::kRead, kModeBytesCw, kModeBytesCwEnd);
}

LockErrc ModeLock::take_own_cw() {
  LockErrc result = LockErrc::kWouldBlock;
  for (int i = 0; i < kOwnByteTries && result == LockErrc::kWouldBlock; ++i) {
    own_ = some_cw_byte();
    result = set_bytes(fd_, ByteLock::kWrite, own_, own_);
  }
  if (result != LockErrc::kOk) own_ = 0;
  return result;
}

// Gives back what `left` does not need.
void ModeLock::leave_cw(CwBytes left) {
  if (left == CwBytes::kOwn) {
    if (own_ > kModeBytesCw) set_bytes(fd_, ByteLock::kNone, kModeBytesCw, own_ - 1);
    if (own_ < kModeBytesCwEnd) set_bytes(fd_, ByteLock::kNone, own_ + 1, kModeBytesCwEnd);
    return;
  }
  if (left == CwBytes::kNone) set_bytes(fd_, ByteLock::kNone, kModeBytesCw, kModeBytesCwEnd);
  own_ = 0;
}

Mode ModeLock::strongest_of_others(int fd) {
  using enum ByteLock;
  if (!bytes_are_taken(fd, kWrite, kModeByteEx, kModeByteEx)) return Mode::kNL;
  if (bytes_are_taken(fd, kRead, kModeByteEx, kModeByteEx)) return Mode::kEX;
  if (bytes_are_taken(fd, kRead, kModeBytePw, kModeBytePw)) return Mode::kPW;
  if (bytes_are_taken(fd, kRead, kModeBytesCw, kModeBytesCwEnd)) return Mode::kCW;
  if (bytes_are_taken(fd, kWrite, kModeBytesCw, kModeBytesCwEnd)) return Mode::kPR;
  return Mode::kCR;
}

}  // namespace lockfs
