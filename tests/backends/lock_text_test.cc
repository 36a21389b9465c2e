// SPDX-License-Identifier: MIT
#include "backends/file/lock_text.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <string>

#include "tests/backends/temporary_file.h"

namespace lockfs {
namespace {

class LockTextTest : public testing::Test {
 protected:
  ~LockTextTest() override { close(fd_); }
  std::string bytes() const {
    struct stat attr {};
    fstat(fd_, &attr);
    std::string text(static_cast<size_t>(attr.st_size), '\0');
    EXPECT_EQ(pread(fd_, text.data(), text.size(), 0), attr.st_size);
    return text;
  }
  void replace(const std::string& text) const {
    ASSERT_EQ(ftruncate(fd_, 0), 0);
    ASSERT_EQ(pwrite(fd_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  /// What the file is when a write of the change from `before` to `after` stopped after n bytes.
  static std::string torn(const std::string& before, const std::string& after, size_t n) {
    std::string text = after.substr(0, n);
    if (n < before.size()) text += before.substr(n);
    return text;
  }

  test::TemporaryFile file_;
  int fd_ = file_.open_again();
  LockText text_{fd_};
};

TEST_F(LockTextTest, AnEmptyFileKnowsNothing) {
  EXPECT_EQ(text_.pin(), std::nullopt);
  EXPECT_TRUE(text_.slots().empty());
}

TEST_F(LockTextTest, TokensOnlyGrow) {
  uint64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const TokenBlock block = text_.next_tokens();
    ASSERT_GT(block.next, last);
    ASSERT_EQ(block.end, block.next + LockText::kTokens);
    last = block.end - 1;
  }
}

TEST_F(LockTextTest, TokensGrowThoughTheFileWasLost) {
  const TokenBlock before = text_.next_tokens();
  ASSERT_EQ(ftruncate(fd_, 0), 0);
  // A token a microsecond: the block is used up by then, as it was when somebody could have held.
  while (text_.next_tokens().next <= before.end) replace("");
}

TEST_F(LockTextTest, APinIsReadBack) {
  const Pin pin{1000, 0640, true};
  ASSERT_TRUE(text_.write_pin(pin));
  EXPECT_EQ(text_.pin(), pin);
  ASSERT_TRUE(text_.write_pin(std::nullopt));
  EXPECT_EQ(text_.pin(), std::nullopt);
}

TEST_F(LockTextTest, ASlotIsReadBackWithAnyBytes) {
  SlotText slot;
  slot.node = "host:1:abc";
  slot.held = Mode::kPR;
  slot.wants = Mode::kEX;
  slot.token = 17;
  slot.who = {"a host", 42, "sh = %41\n", 1000, "box", -5, "a\"note\xff\x01", 3};
  ASSERT_TRUE(text_.write_slot(2, slot));
  const auto slots = text_.slots();
  ASSERT_EQ(slots.size(), 1U);
  EXPECT_EQ(slots[0].first, 2U);
  const SlotText& read = slots[0].second;
  EXPECT_EQ(read.node, slot.node);
  EXPECT_EQ(read.held, slot.held);
  EXPECT_EQ(read.wants, slot.wants);
  EXPECT_EQ(read.token, slot.token);
  EXPECT_EQ(read.who.host, slot.who.host);
  EXPECT_EQ(read.who.pid, slot.who.pid);
  EXPECT_EQ(read.who.comm, slot.who.comm);
  EXPECT_EQ(read.who.since, slot.who.since);
  EXPECT_EQ(read.who.note, slot.who.note);
  EXPECT_EQ(read.who.more, slot.who.more);
}

TEST_F(LockTextTest, ALongNoteIsCutAndSpoilsNothing) {
  SlotText slot;
  slot.node = "n";
  slot.held = Mode::kEX;
  slot.who.note = std::string(4096, '\xe4');
  ASSERT_TRUE(text_.write_slot(0, slot));
  const auto slots = text_.slots();
  ASSERT_EQ(slots.size(), 1U);
  EXPECT_EQ(slots[0].second.held, Mode::kEX);
  EXPECT_GT(slots[0].second.who.note.size(), 20U);
}

// A writer that dies after any byte leaves the token that was there, or the next one.
TEST_F(LockTextTest, ATokenTornAtAnyByteNeverGoesBack) {
  for (int round = 0; round < 3; ++round) {
    const uint64_t known = text_.next_tokens().end - 1;
    const std::string before = bytes();
    text_.next_tokens();
    const std::string after = bytes();
    for (size_t n = 0; n <= after.size(); ++n) {
      replace(torn(before, after, n));
      ASSERT_GT(text_.next_tokens().next, known) << "torn after " << n << " bytes";
    }
    replace(after);
  }
}

TEST_F(LockTextTest, APinTornAtAnyByteIsTheOldOrTheNewOne) {
  const Pin old_pin{1, 0600, false};
  const Pin new_pin{2, 0666, true};
  ASSERT_TRUE(text_.write_pin(old_pin));
  const std::string before = bytes();
  ASSERT_TRUE(text_.write_pin(new_pin));
  const std::string after = bytes();
  for (size_t n = 0; n <= after.size(); ++n) {
    replace(torn(before, after, n));
    const auto pin = text_.pin();
    ASSERT_TRUE(pin == old_pin || pin == new_pin) << "torn after " << n << " bytes";
  }
}

TEST_F(LockTextTest, ASlotTornAtAnyByteIsTheOldTheNewOrNone) {
  SlotText slot;
  slot.node = "n";
  slot.held = Mode::kPR;
  ASSERT_TRUE(text_.write_slot(0, slot));
  const std::string before = bytes();
  slot.held = Mode::kEX;
  slot.who.note = "changed";
  ASSERT_TRUE(text_.write_slot(0, slot));
  const std::string after = bytes();
  for (size_t n = 0; n <= after.size(); ++n) {
    replace(torn(before, after, n));
    const auto slots = text_.slots();
    ASSERT_LE(slots.size(), 1U);
    if (slots.empty()) continue;
    EXPECT_EQ(slots[0].second.who.note, slots[0].second.held == Mode::kEX ? "changed" : "");
  }
}

TEST_F(LockTextTest, AnyFlippedByteIsNoLine) {
  const std::string line = text_line("pin uid=1", LockText::kLine);
  ASSERT_EQ(line_words(line), "pin uid=1");
  for (size_t i = 0; i < line.size(); ++i) {
    std::string flipped = line;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x10);
    EXPECT_EQ(line_words(flipped), std::nullopt) << "byte " << i;
  }
}

}  // namespace
}  // namespace lockfs
