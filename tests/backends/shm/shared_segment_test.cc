// SPDX-License-Identifier: MIT
// How a segment is opened, or refused, and that it outlives the mounts that use it.
#include "backends/shm/shared_segment.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/backends/shm/segment_file.h"

namespace lockfs::shm::test {
namespace {

using testing::HasSubstr;

std::string why_not(const std::string& path, std::optional<uint32_t> locks = std::nullopt) {
  const auto opened = SharedSegment::open(path, locks);
  return opened ? "it was opened" : opened.error();
}

TEST(SharedSegment, IsMadeOnceAndJoinedByOthers) {
  const SegmentFile file;
  const auto one = SharedSegment::open(file.path(), 64);
  ASSERT_TRUE(one) << one.error();
  const auto two = SharedSegment::open(file.path(), std::nullopt);
  ASSERT_TRUE(two) << two.error();
  EXPECT_NE((*one)->self(), (*two)->self());
  EXPECT_EQ((*two)->locks().lock_count(), 64U);
  struct stat attr {};
  ASSERT_EQ(stat(file.path().c_str(), &attr), 0);
  EXPECT_EQ(attr.st_mode & 0777, 0600U);
}

TEST(SharedSegment, OfAnotherCapacityIsRefused) {
  const SegmentFile file;
  const auto one = SharedSegment::open(file.path(), 64);
  EXPECT_THAT(why_not(file.path(), 128), HasSubstr("made for 64 locks, not 128"));
}

TEST(SharedSegment, OfAnotherVersionOrSizeOrMakerIsRefused) {
  const SegmentFile file;
  { const auto one = SharedSegment::open(file.path(), 64); }
  const int fd = open(file.path().c_str(), O_RDWR);
  const uint32_t version = 9;
  pwrite(fd, &version, sizeof version, offsetof(Header, version));
  EXPECT_THAT(why_not(file.path()), HasSubstr("version 9, this lockfs knows version 1"));
  pwrite(fd, &kVersion, sizeof version, offsetof(Header, version));
  ASSERT_EQ(ftruncate(fd, 8192), 0);
  EXPECT_THAT(why_not(file.path()), HasSubstr("it has 8192 bytes, and should have"));
  const uint32_t count = 1U << 30U;
  pwrite(fd, &count, sizeof count, offsetof(Header, lock_count));
  EXPECT_THAT(why_not(file.path()), HasSubstr("its head is damaged"));
  pwrite(fd, "something", 9, 0);
  EXPECT_THAT(why_not(file.path()), HasSubstr("no segment of lockfs"));
  ASSERT_EQ(ftruncate(fd, 10), 0);
  EXPECT_THAT(why_not(file.path()), HasSubstr("too short"));
  close(fd);
}

TEST(SharedSegment, OfAnotherUserIsRefused) {
  const SegmentFile file;
  { const auto one = SharedSegment::open(file.path(), 64); }
  if (chown(file.path().c_str(), 4711, 4711) != 0) GTEST_SKIP() << "only root can give files away";
  EXPECT_THAT(why_not(file.path()), HasSubstr("belongs to uid 4711"));
}

TEST(SharedSegment, WithRandomBytesIsRefusedOrMended) {
  const SegmentFile file;
  { const auto one = SharedSegment::open(file.path(), 64); }
  const int fd = open(file.path().c_str(), O_RDWR);
  const uint64_t bytes = 0x1234567890abcdef;
  pwrite(fd, &bytes, sizeof bytes, kChainsAt + 16);  // What follows from the truth.
  EXPECT_EQ(why_not(file.path()), "it was opened");
  pwrite(fd, &bytes, sizeof bytes, static_cast<off_t>(locks_at(64)));  // A lock's `used`.
  EXPECT_THAT(why_not(file.path()), HasSubstr("it is damaged"));
  close(fd);
}

TEST(SharedSegment, IsRefusedWhereItCannotBe) {
  EXPECT_THAT(why_not("/dev/shm/no/such/folder"), HasSubstr("No such file or directory"));
  EXPECT_THAT(why_not("/dev/shm"), HasSubstr("Is a directory"));
}

TEST(SharedSegment, HasRoomForSixtyFourMounts) {
  const SegmentFile file;
  std::vector<std::unique_ptr<SharedSegment>> all;
  for (uint32_t i = 0; i < kNodes; ++i) {
    auto one = SharedSegment::open(file.path(), 64);
    ASSERT_TRUE(one) << one.error();
    all.push_back(std::move(*one));
  }
  EXPECT_THAT(why_not(file.path()), HasSubstr("64 mounts use it already"));
  all.erase(all.begin() + 17);
  EXPECT_EQ(why_not(file.path()), "it was opened");
}

TEST(SharedSegment, SaysWhenItIsNotWhatANewMountWouldOpen) {
  const SegmentFile file;
  const auto one = SharedSegment::open(file.path(), 64);
  EXPECT_FALSE((*one)->gone());
  ASSERT_EQ(rename(file.path().c_str(), (file.path() + ".moved").c_str()), 0);
  EXPECT_EQ((*one)->gone(), "it was renamed");
  const auto two = SharedSegment::open(file.path(), 64);
  EXPECT_EQ((*one)->gone(), "another one has its name now");
  EXPECT_FALSE((*two)->gone());
  unlink((file.path() + ".moved").c_str());
}

TEST(SharedSegment, ThatIsTruncatedUnderAMountIsDamageAndNoCrash) {
  const SegmentFile file;
  const auto one = SharedSegment::open(file.path(), 64);
  ASSERT_EQ(truncate(file.path().c_str(), 0), 0);
  EXPECT_EQ((*one)->gone(), "it was truncated");
  EXPECT_THROW((*one)->locks().look(0, "space", "a"), DamagedSegment);
  EXPECT_THROW((*one)->enter(), DamagedSegment);
}

TEST(SharedSegment, ANewcomerSaysWhoHasStoppedInAChange) {
  const SegmentFile file;
  const auto one = SharedSegment::open(file.path(), 64);
  ASSERT_TRUE((*one)->enter());
  const auto two = SharedSegment::open(file.path(), std::nullopt, std::chrono::milliseconds(50));
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error(), HasSubstr("pid " + std::to_string(getpid())));
  (*one)->leave();
  EXPECT_EQ(why_not(file.path()), "it was opened");
}

}  // namespace
}  // namespace lockfs::shm::test
