// SPDX-License-Identifier: MIT
// Reading a lock: when a picture is fresh, and what stands in it.
#include <sys/file.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Reads : public MountTest {
 protected:
  /// read(2) at the descriptor's own position.
  static std::string next(const Fd& fd, size_t size = 65536) {
    std::string text(size, '\0');
    const ssize_t n = read(fd.get(), text.data(), size);
    EXPECT_GE(n, 0) << errno;
    text.resize(n > 0 ? size_t(n) : 0);
    return text;
  }
  static std::string mode_in(const std::string& yaml) { return picture_value(yaml, "mode"); }
};

TEST_F(Reads, AFreshPictureAfterEachEndOfFile) {
  const Fd fd = open("a");
  EXPECT_EQ(mode_in(next(fd)), "free");
  EXPECT_EQ(next(fd), "") << "end of file";
  const Fd holder = hold("a", "PW");
  EXPECT_EQ(mode_in(next(fd)), "PW");
  EXPECT_EQ(next(fd), "");
}

TEST_F(Reads, AFreshPictureAfterEachWrite) {
  const Fd fd = open("a");
  for (const std::string mode : {"EX", "PR", "CR"}) {
    ASSERT_EQ(write_command(fd.get(), mode), 0);
    EXPECT_EQ(mode_in(next(fd)), mode) << "wherever the position is";
  }
  EXPECT_EQ(write_command(fd.get(), "nonsense"), EINVAL);
  EXPECT_THAT(next(fd), HasSubstr("unknown mode")) << "a refused write counts as well";
}

TEST_F(Reads, AFreshPictureAtOffsetZero) {
  const Fd fd = open("a");
  EXPECT_EQ(mode_in(next(fd)), "free");
  const Fd holder = hold("a", "CW");
  ASSERT_EQ(lseek(fd.get(), 0, SEEK_SET), 0);
  EXPECT_EQ(mode_in(next(fd)), "CW");
  EXPECT_EQ(mode_in(picture_of(fd.get())), "CW");
}

TEST_F(Reads, APictureReadInPiecesIsOfOneMoment) {
  const Fd fd = open("a");
  Fd holder = hold("a", "EX note=\"" + std::string(1000, 'n') + "\"");
  std::string text = next(fd, 7);
  holder.reset();
  const Fd another = hold("a", "PR");
  for (std::string piece; !(piece = next(fd, 7)).empty();) text += piece;
  EXPECT_EQ(mode_in(text), "EX");
  EXPECT_THAT(text, HasSubstr(std::string(1000, 'n')));
  EXPECT_EQ(mode_in(next(fd)), "PR");
}

TEST_F(Reads, TwoDescriptorsHaveTheirOwnPictures) {
  const Fd one = open("a");
  const Fd two = open("a");
  const std::string piece = next(one, 10);
  EXPECT_EQ(mode_in(next(two)), "free");
  EXPECT_EQ(mode_in(piece + next(one)), "free");
}

TEST_F(Reads, EveryKeyOfTheDesignIsThere) {
  Actor waiter;
  ASSERT_EQ(waiter.open(mount_.lock("a")), 0);
  const Fd fd = hold("a", "EX note=\"words\" ttl=1h linger=1h");
  waiter.begin_write(0, "PR timeout=1h");
  ASSERT_TRUE(eventually_waiting(1));
  const YAML::Node yaml = YAML::Load(picture_of(fd.get()));
  const auto has = [&](const YAML::Node& node, const std::vector<std::string>& keys) {
    for (const std::string& key : keys) EXPECT_TRUE(node[key].IsDefined()) << key;
  };
  has(yaml,
      {"lock", "lockspace", "backend", "mode", "token", "holders", "waiters", "stats", "this"});
  has(yaml["holders"][0],
      {"mode", "pid", "comm", "uid", "host", "container", "since", "held", "expires", "note"});
  has(yaml["waiters"][0], {"mode", "pid", "comm", "uid", "waiting", "deadline"});
  has(yaml["stats"], {"grants", "contended", "timeouts", "deadlocks", "lost", "wait", "hold"});
  has(yaml["stats"]["wait"], {"mean", "max"});
  has(yaml["stats"]["hold"], {"mean", "max"});
  has(yaml["this"], {"mode", "token", "key", "error"});
  EXPECT_EQ(yaml["lock"].as<std::string>(), "a");
  EXPECT_EQ(yaml["lockspace"].as<std::string>(), "default");
  EXPECT_EQ(yaml["backend"].as<std::string>(), "memory");
  EXPECT_EQ(yaml["waiters"][0]["pid"].as<int>(), waiter.pid());
  EXPECT_EQ(yaml["waiters"][0]["mode"].as<std::string>(), "PR");
  EXPECT_EQ(yaml["holders"][0]["pid"].as<int>(), getpid());
}

TEST_F(Reads, TheKeysOfAFreeLockAreThereToo) {
  const Fd fd = open("a");
  const YAML::Node yaml = YAML::Load(picture_of(fd.get()));
  for (const std::string key :
       {"lock", "lockspace", "backend", "mode", "token", "holders", "waiters", "stats"}) {
    EXPECT_TRUE(yaml[key].IsDefined()) << key;
  }
  EXPECT_EQ(yaml["mode"].as<std::string>(), "free");
  EXPECT_TRUE(yaml["holders"].IsSequence());
  EXPECT_EQ(yaml["holders"].size(), 0U);
  EXPECT_EQ(yaml["waiters"].size(), 0U);
}

TEST_F(Reads, ThisStandsOnlyInThePictureOfOneThatHoldsWaitsOrWasRefused) {
  const Fd fd = open("a");
  EXPECT_THAT(picture_of(fd.get()), Not(HasSubstr("this:")));
  ASSERT_EQ(write_command(fd.get(), "PR"), 0);
  EXPECT_EQ(value_of(fd.get(), "this.mode"), "PR");
  EXPECT_THAT(slurp(mount_.lock("a")), Not(HasSubstr("this:"))) << "a stranger's picture";
  ASSERT_EQ(write_command(fd.get(), "UN"), 0);
  EXPECT_THAT(picture_of(fd.get()), Not(HasSubstr("this:")));
  const Fd holder = hold("a", "EX");
  ASSERT_EQ(write_command(fd.get(), "EX try"), EAGAIN);
  EXPECT_EQ(value_of(fd.get(), "this.mode"), "none");
  EXPECT_THAT(value_of(fd.get(), "this.error"), HasSubstr("held in EX"));
}

TEST_F(Reads, AWaiterSeesItselfThroughItsDescriptor) {
  const Fd holder = hold("a", "EX");
  const Fd fd = open("a");
  auto wait = in_thread([&] { return flock_of(fd.get(), LOCK_SH); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(value_of(fd.get(), "this.waiting_for"), "PR");
  EXPECT_EQ(value_of(fd.get(), "this.mode"), "none");
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  ASSERT_TRUE(ended(wait));
}

TEST_F(Reads, AHolderByFlockOfdOrPosixSeesItselfThroughItsDescriptor) {
  for (const Way way : kWays) {
    const Fd fd = open("a");
    ASSERT_EQ(take(way, fd.get(), Want::kExclusive), 0);
    EXPECT_EQ(value_of(fd.get(), "this.mode"), "EX") << name_of(way);
    EXPECT_EQ(value_of(fd.get(), "this.token"), value_of(fd.get(), "token")) << name_of(way);
  }
}

TEST_F(Reads, StatsCountWhatHappened) {
  Actor one;
  ASSERT_EQ(one.open(mount_.lock("a")), 0);
  ASSERT_EQ(one.write(0, "EX"), 0);
  const Fd two = open("a");
  EXPECT_EQ(write_command(two.get(), "EX timeout=10ms"), ETIMEDOUT);
  auto wait = in_thread([&] { return write_command(two.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  ASSERT_EQ(one.write(0, "UN"), 0);
  ASSERT_TRUE(ended(wait));
  EXPECT_EQ(value("a", "stats.grants"), "2");
  EXPECT_EQ(value("a", "stats.contended"), "1");
  EXPECT_EQ(value("a", "stats.timeouts"), "1");
  EXPECT_EQ(value("a", "stats.lost"), "0");
}

TEST_F(Reads, AReaderDoesNotWaitWhileAnotherDescriptorsWriteWaits) {
  const Fd holder = hold("a", "EX");
  const Fd waiting = open("a");
  auto wait = in_thread([&] { return write_command(waiting.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  auto reader = in_thread([&] { return slurp(mount_.lock("a")); });
  ASSERT_TRUE(ended(reader, 5));
  EXPECT_EQ(picture_value(reader.get(), "waiters_total"), "1");
  EXPECT_EQ(value_of(waiting.get(), "this.waiting_for"), "EX") << "by pread, the same descriptor";
  ASSERT_EQ(write_command(holder.get(), "UN"), 0);
  ASSERT_TRUE(ended(wait));
}

TEST_F(Reads, HostileNotesAndNamesStayOneDocument) {
  const std::string note = "x: [1, }\\n--- 'y' \\\" # & * ! | > %@`";
  const Fd fd = hold("default/a: b #c", "EX note=\"" + note + "\"");
  const YAML::Node yaml = YAML::Load(slurp(mount_.lock("default/a: b #c")));
  EXPECT_EQ(yaml["lock"].as<std::string>(), "a: b #c");
  EXPECT_EQ(yaml["holders"][0]["note"].as<std::string>(), "x: [1, }n--- 'y' \" # & * ! | > %@`");
}

}  // namespace
}  // namespace lockfs::test
