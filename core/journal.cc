// SPDX-License-Identifier: MIT
#include "core/journal.h"

namespace lockfs {

Happening& Journal::add(Happening::Kind kind, TimePoint when, std::string_view lockspace,
                        std::string_view lock) {
  if (ring_.size() < kKept) ring_.emplace_back();
  Happening& happening = ring_[end_++ % kKept];
  happening.kind = kind;
  happening.when = when;
  happening.lockspace = lockspace;
  happening.lock = lock;
  happening.share = {};
  happening.thread = happening.process = 0;
  happening.uid = 0;
  happening.token = 0;
  happening.waited = false;
  happening.lasted = {};
  happening.why.clear();
  if (on_new) on_new();
  return happening;
}

std::string_view happening_name(Happening::Kind kind) {
  switch (kind) {
    case Happening::Kind::kWaiting: return "waiting";
    case Happening::Kind::kGranted: return "granted";
    case Happening::Kind::kReleased: return "released";
    case Happening::Kind::kTimeout: return "timeout";
    case Happening::Kind::kInterrupted: return "interrupted";
    case Happening::Kind::kDeadlock: return "deadlock";
    case Happening::Kind::kRefused: return "refused";
    case Happening::Kind::kLost: return "lost";
    case Happening::Kind::kBroken: return "broken";
    case Happening::Kind::kBackendDown: return "backend_down";
    case Happening::Kind::kBackendUp: return "backend_up";
    case Happening::Kind::kStarted: return "started";
  }
  return "";
}

}  // namespace lockfs
