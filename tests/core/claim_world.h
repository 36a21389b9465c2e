// SPDX-License-Identifier: MIT
#pragma once
#include "tests/core/async_backend.h"
#include "tests/core/table_world.h"

namespace lockfs {

/// A table over a backend that takes its time, and is told what it may be told.
class ClaimWorld : protected AsyncBackend, public TableWorldOn {
 protected:
  ClaimWorld() : TableWorldOn(static_cast<AsyncBackend&>(*this)) {}
  void TearDown() override { EXPECT_EQ(breaches, 0) << "the table broke the backend's contract"; }

  /// An owner whose grant the backend has confirmed.
  OwnerId granted_owner(Mode mode, uint64_t tokens) {
    const OwnerId owner = waiter(mode);
    grant(tokens);
    EXPECT_THAT(observer.take(), testing::ElementsAre(Answer{owner, LockErrc::kOk}));
    return owner;
  }
};

}  // namespace lockfs
