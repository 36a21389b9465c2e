// SPDX-License-Identifier: MIT
// Who is granted what at once, who waits, and in which order the waiters go.
#include "tests/core/table_world.h"

namespace lockfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
constexpr auto kOk = LockErrc::kOk;

/// Every pair of modes: one is held, the other is asked for.
class GrantPairs : public TableWorld, public testing::WithParamInterface<std::tuple<Mode, Mode>> {
 protected:
  // By hand, not by the function under test: what may stand beside each mode, weakest first.
  static bool together(Mode a, Mode b) {
    static const std::map<Mode, std::string> beside = {
        {Mode::kNL, "NL CR CW PR PW EX"}, {Mode::kCR, "NL CR CW PR PW"}, {Mode::kCW, "NL CR CW"},
        {Mode::kPR, "NL CR PR"},          {Mode::kPW, "NL CR"},          {Mode::kEX, "NL"}};
    return beside.at(a).find(mode_name(b)) != std::string::npos;
  }
  Mode held = std::get<0>(GetParam());
  Mode wanted = std::get<1>(GetParam());
};

TEST_P(GrantPairs, AreGrantedTogetherOrTheSecondWaits) {
  const OwnerId a = holder(held);
  const OwnerId b = open();
  if (together(held, wanted)) {
    EXPECT_EQ(ask(b, wanted), kOk);
    EXPECT_TRUE(holds(b, wanted));
    EXPECT_TRUE(holds(a, held));
    return;
  }
  EXPECT_EQ(ask(b, wanted), std::nullopt);
  EXPECT_TRUE(waits(b));
  EXPECT_TRUE(holds(a, held));
  EXPECT_THAT(observer.answers, IsEmpty());
  table.release(a);
  EXPECT_THAT(observer.answers, ElementsAre(Answer{b, kOk}));
  EXPECT_TRUE(holds(b, wanted));
}

TEST_P(GrantPairs, ATryIsAnsweredAtOnce) {
  const OwnerId a = holder(held);
  const OwnerId b = open();
  EXPECT_EQ(attempt(b, wanted), together(held, wanted) ? kOk : LockErrc::kWouldBlock);
  EXPECT_FALSE(waits(b));
  EXPECT_TRUE(holds(a, held));
  table.release(a);
  EXPECT_THAT(observer.answers, IsEmpty());
}

TEST_P(GrantPairs, AWaiterGoesWhenTheHolderCloses) {
  if (together(held, wanted)) return;
  const OwnerId a = holder(held);
  const OwnerId b = waiter(wanted);
  table.close(a);
  EXPECT_EQ(table.find(a), nullptr);
  EXPECT_THAT(observer.answers, ElementsAre(Answer{b, kOk}));
}

INSTANTIATE_TEST_SUITE_P(AllModes, GrantPairs,
                         testing::Combine(testing::ValuesIn(kAllModes),
                                          testing::ValuesIn(kAllModes)),
                         [](const auto& pair) {
                           return std::string(mode_name(std::get<0>(pair.param))) +
                                  std::string(mode_name(std::get<1>(pair.param)));
                         });

class LockTableGrant : public TableWorld {};

TEST_F(LockTableGrant, LocksOfOtherNamesDoNotMeet) {
  holder(Mode::kEX, kNobody, "a");
  holder(Mode::kEX, kNobody, "b");
}

TEST_F(LockTableGrant, LocksOfOtherLockspacesDoNotMeet) {
  MemoryBackend other_backend;
  TimerQueue other_timers;
  LockTable two(other_timers, processes, observer);
  Lockspace& first = two.add_lockspace("first", other_backend);
  Lockspace& second = two.add_lockspace("second", other_backend);
  EXPECT_EQ(two.request(two.open(first, "a", {}), want(Mode::kEX), {}), kOk);
  EXPECT_EQ(two.request(two.open(second, "a", {}), want(Mode::kEX), {}), kOk);
  EXPECT_EQ(two.request(two.open(second, "a", {}), want(Mode::kEX), {}), std::nullopt);
}

TEST_F(LockTableGrant, WaitersGoInTheOrderTheyCame) {
  OwnerId last = holder(Mode::kEX);
  std::vector<OwnerId> queue;
  for (int i = 0; i < 20; ++i) queue.push_back(waiter(i % 2 != 0 ? Mode::kEX : Mode::kPW));
  for (const OwnerId next : queue) {
    table.close(last);
    EXPECT_THAT(observer.take(), ElementsAre(Answer{next, kOk}));
    last = next;
  }
}

TEST_F(LockTableGrant, AReaderDoesNotOvertakeAWriterThatWaits) {
  const OwnerId reader = holder(Mode::kPR);
  const OwnerId writer = waiter(Mode::kEX);
  const OwnerId late = waiter(Mode::kPR);  // Goes with the reader, but would delay the writer.
  table.release(reader);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{writer, kOk}));
  EXPECT_TRUE(waits(late));
  table.release(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{late, kOk}));
}

TEST_F(LockTableGrant, ATryDoesNotOvertakeAWriterThatWaits) {
  holder(Mode::kPR);
  waiter(Mode::kEX);
  EXPECT_EQ(attempt(open(), Mode::kPR), LockErrc::kWouldBlock);
}

TEST_F(LockTableGrant, ANewcomerThatDelaysNoWaiterMayOvertake) {
  const OwnerId writer = holder(Mode::kPW);
  const OwnerId reader = waiter(Mode::kPR);
  const OwnerId early = open();
  EXPECT_EQ(ask(early, Mode::kCR), kOk);  // Goes with the holder and with the waiter.
  table.release(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{reader, kOk}));
  EXPECT_TRUE(holds(early, Mode::kCR));
}

TEST_F(LockTableGrant, NullIsGrantedAtOnceWhoeverWaits) {
  holder(Mode::kEX);
  waiter(Mode::kEX);
  EXPECT_EQ(ask(open(), Mode::kNL), kOk);
}

TEST_F(LockTableGrant, ARunOfCompatibleWaitersIsWokenTogetherAndNoMore) {
  const OwnerId writer = holder(Mode::kEX);
  const OwnerId a = waiter(Mode::kPR);
  const OwnerId b = waiter(Mode::kCR);
  const OwnerId c = waiter(Mode::kPR);
  const OwnerId next_writer = waiter(Mode::kEX);
  const OwnerId behind = waiter(Mode::kPR);
  table.release(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{a, kOk}, Answer{b, kOk}, Answer{c, kOk}));
  EXPECT_TRUE(waits(next_writer));
  EXPECT_TRUE(waits(behind));
}

TEST_F(LockTableGrant, ALaterWaiterMayGoBeforeOneThatItDoesNotDelay) {
  const OwnerId owner = holder(Mode::kEX);
  const OwnerId reader = waiter(Mode::kPR);
  const OwnerId watcher = waiter(Mode::kCR);
  EXPECT_EQ(ask(owner, Mode::kPW), kOk);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{watcher, kOk}));
  EXPECT_TRUE(waits(reader));
}

TEST_F(LockTableGrant, TheNextGoesWhenTheWaiterBeforeItIsGone) {
  holder(Mode::kPR);
  const OwnerId writer = waiter(Mode::kEX);
  const OwnerId reader = waiter(Mode::kPR);
  table.close(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{reader, kOk}));
}

TEST_F(LockTableGrant, AClosedWaitIsNotAnswered) {
  const OwnerId writer = holder(Mode::kEX);
  const OwnerId gone = waiter(Mode::kEX);
  table.close(gone);
  EXPECT_EQ(table.find(gone), nullptr);
  table.release(writer);
  EXPECT_THAT(observer.answers, IsEmpty());
  EXPECT_EQ(attempt(open(), Mode::kEX), kOk);
}

TEST_F(LockTableGrant, ACancelledWaitSaysInterrupted) {
  const OwnerId writer = holder(Mode::kEX);
  const OwnerId waits_no_more = waiter(Mode::kEX);
  table.cancel(waits_no_more);
  table.cancel(waits_no_more);
  table.cancel(writer);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{waits_no_more, LockErrc::kInterrupted}));
  EXPECT_TRUE(free(waits_no_more));
  EXPECT_TRUE(holds(writer, Mode::kEX));
}

TEST_F(LockTableGrant, AnOwnerThatWaitsIsBusy) {
  holder(Mode::kEX);
  const OwnerId waiting = waiter(Mode::kPR);
  EXPECT_EQ(ask(waiting, Mode::kCR), LockErrc::kBusy);
  EXPECT_TRUE(waits(waiting));
}

TEST_F(LockTableGrant, AnOwnerThatIsGoneIsNotFoundByAnyVerb) {
  const OwnerId gone = holder(Mode::kEX);
  table.close(gone);
  EXPECT_EQ(ask(gone, Mode::kEX), LockErrc::kNotFound);
  EXPECT_EQ(table.renew(gone, std::nullopt), LockErrc::kNotFound);
  EXPECT_EQ(table.resume(gone, "key", {}), LockErrc::kNotFound);
  table.release(gone);
  table.cancel(gone);
  table.undo(gone);
  table.close(gone);
  EXPECT_EQ(attempt(open(), Mode::kEX), kOk);
}

TEST_F(LockTableGrant, TheObserverMayAskAgainFromWithinAnAnswer) {
  const OwnerId first = holder(Mode::kEX);
  const OwnerId second = waiter(Mode::kEX);
  const OwnerId third = waiter(Mode::kEX);
  observer.on_answer = [&](OwnerId owner, LockErrc) { table.release(owner); };
  table.release(first);
  EXPECT_THAT(observer.take(), ElementsAre(Answer{second, kOk}, Answer{third, kOk}));
  EXPECT_FALSE(lock().held());
}

TEST_F(LockTableGrant, AnAnswerComesOnlyWhenAllIsDone) {
  const OwnerId writer = holder(Mode::kEX);
  const OwnerId a = waiter(Mode::kPR);
  const OwnerId b = waiter(Mode::kPR);
  observer.on_answer = [&](OwnerId, LockErrc) {
    EXPECT_TRUE(holds(a, Mode::kPR));
    EXPECT_TRUE(holds(b, Mode::kPR));
  };
  table.release(writer);
  EXPECT_EQ(observer.take().size(), 2U);
}

TEST_F(LockTableGrant, ManyCompatibleHoldersStandTogether) {
  std::vector<OwnerId> readers;
  for (int i = 0; i < 100; ++i) readers.push_back(holder(Mode::kPR));
  const OwnerId writer = waiter(Mode::kEX);
  for (const OwnerId reader : readers) {
    EXPECT_TRUE(waits(writer));
    table.close(reader);
  }
  EXPECT_TRUE(holds(writer, Mode::kEX));
}

}  // namespace
}  // namespace lockfs
