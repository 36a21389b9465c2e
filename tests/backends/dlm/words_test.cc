// SPDX-License-Identifier: MIT
// Messages between mounts: what is said is what is heard.
#include "backends/dlm/words.h"

#include <gmock/gmock.h>

namespace lockfs::dlm {
namespace {

Told told(const std::string& name) {
  Told out;
  out.name = name;
  out.held = Mode::kPW;
  out.wanted = Mode::kEX;
  out.who = {"host", 17, "make all", 1000, "box", 123456789, "a = \"b\"\nc", 2, 99};
  return out;
}

TEST(DlmWords, AnAnswerComesThroughWithAllItsLocks) {
  Message message;
  message.kind = Message::Kind::kTell;
  message.number = 1ULL << 63;
  message.to_node = 4000000000U;
  message.to_pid = 7;
  message.last = true;
  message.locks = {told("plain"), told(std::string("\0\xff new\nline = %", 15)), told("")};
  const auto heard = from_text(to_text(message));
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->kind, Message::Kind::kTell);
  EXPECT_EQ(heard->number, message.number);
  EXPECT_EQ(heard->to_node, message.to_node);
  EXPECT_EQ(heard->to_pid, 7U);
  EXPECT_TRUE(heard->last);
  ASSERT_EQ(heard->locks.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const Told& lock = heard->locks[i];
    EXPECT_EQ(lock.name, message.locks[i].name);
    EXPECT_EQ(lock.held, Mode::kPW);
    EXPECT_EQ(lock.wanted, Mode::kEX);
    EXPECT_EQ(lock.who.token, 99U);
    EXPECT_EQ(lock.who.comm, "make all");
    EXPECT_EQ(lock.who.note, "a = \"b\"\nc");
    EXPECT_EQ(lock.who.since, 123456789);
    EXPECT_FALSE(lock.pin);
  }
}

TEST(DlmWords, PinsComeThrough) {
  Message message;
  message.kind = Message::Kind::kPin;
  message.name = "a b";
  message.pin = {1000, 0640, true};
  message.fresh = true;
  const auto pin = from_text(to_text(message));
  ASSERT_TRUE(pin);
  EXPECT_EQ(pin->name, "a b");
  EXPECT_EQ(pin->pin, message.pin);
  EXPECT_TRUE(pin->fresh);
  message.kind = Message::Kind::kPins;
  message.locks.resize(1);
  message.locks[0].name = "17";
  message.locks[0].pin = Pin{0, 0666, false};
  const auto all = from_text(to_text(message));
  ASSERT_TRUE(all);
  ASSERT_EQ(all->locks.size(), 1U);
  EXPECT_EQ(all->locks[0].name, "17");
  EXPECT_EQ(all->locks[0].pin, (Pin{0, 0666, false}));
}

TEST(DlmWords, WhatIsNoMessageIsNone) {
  for (const char* text : {"", "\n", "lockfs=2 kind=ask", "lockfs=1", "lockfs=1 kind=hello",
                           "kind=ask", "name=a held=EX"}) {
    EXPECT_FALSE(from_text(text)) << text;
  }
}

}  // namespace
}  // namespace lockfs::dlm
