// SPDX-License-Identifier: MIT
// Where a lockfs is, or is being mounted, no second one is: it would know nothing of the first
// one's holders.
#include "fs/mount_point.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;

// How many mounts mountinfo has there, of those upon each other each.
int mounts_at(const std::string& place) {
  std::string escaped;
  for (const char c : place) escaped += c == ' ' ? std::string("\\040") : std::string(1, c);
  std::ifstream mounts("/proc/self/mountinfo");
  int count = 0;
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(" " + escaped + " ") != std::string::npos) ++count;
  }
  return count;
}

// A lockfs in the foreground, and what it says.
class Start {
 public:
  explicit Start(const std::string& place, int gate = -1)
      : daemon_([&] {
          char word = 0;
          if (gate >= 0 && read(gate, &word, 1) != 1) return 126;
          if (freopen(log_.path.c_str(), "w", stderr) == nullptr) return 126;
          const std::string program = lockfs_binary();
          execl(program.c_str(), program.c_str(), "-f", "memory:", place.c_str(), nullptr);
          return 127;
        }) {}
  ~Start() {
    if (code_) return;
    stop();  // Killed, it would leave its mount.
    ends();
  }
  Start(const Start&) = delete;
  Start& operator=(const Start&) = delete;
  /// Has it ended, within ten seconds?
  bool ends() const {
    return eventually([&] {
      siginfo_t info{};
      return waitid(P_PID, static_cast<id_t>(daemon_.pid()), &info, WEXITED | WNOWAIT | WNOHANG) ==
                 0 &&
             info.si_pid != 0;
    });
  }
  /// -1: it goes on.
  int exit_code() {
    if (ends()) code_ = daemon_.wait();
    return code_.value_or(-1);
  }
  std::string words() const { return slurp(log_.path); }
  bool serves() const { return words().find(" serves memory:") != std::string::npos; }
  void stop() { daemon_.signal(SIGTERM); }

 private:
  struct Log {
    Log() { close(mkstemp(path.data())); }
    ~Log() { unlink(path.c_str()); }
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;
    std::string path = "/tmp/lockfs-start-XXXXXX";
  };
  Log log_;
  Child daemon_;
  std::optional<int> code_;
};

// A directory to mount at.
class MountPoint : public ::testing::Test {
 protected:
  MountPoint() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    EXPECT_EQ(mkdir(place().c_str(), 0755), 0);
  }
  ~MountPoint() override {
    while (umount2(place().c_str(), MNT_DETACH) == 0) {  // Where a test has failed.
    }
    rmdir(place().c_str());
    rmdir(directory_.c_str());
  }
  std::string place() const { return directory_ + "/my locks"; }

 private:
  std::string directory_ = "/tmp/lockfs-place-XXXXXX";
};

TEST_F(MountTest, ASecondOneAtItsPlaceIsRefused) {
  const Fd held = hold("a", "EX");
  Start second(mount_.path());
  EXPECT_EQ(second.exit_code(), 1);
  EXPECT_THAT(second.words(), HasSubstr(mount_.path() + ": a lockfs (memory:) is mounted there"));
  EXPECT_EQ(mounts_at(mount_.path()), 1);
  EXPECT_EQ(value("a", "mode"), "EX") << "the first goes on";
}

TEST_F(MountTest, OneWhoseDaemonDiedKeepsItsPlaceAndIsToBeTakenOff) {
  const Fd held = hold("a", "EX");
  struct stat root {};
  ASSERT_EQ(stat(mount_.path().c_str(), &root), 0) << "which the kernel remembers";
  kill(mount_.daemon(), SIGKILL);
  ASSERT_TRUE(eventually([&] { return write_command(held.get(), "UN") != 0; }));
  Start second(mount_.path());
  EXPECT_EQ(second.exit_code(), 1);
  EXPECT_THAT(second.words(), HasSubstr("umount -l " + mount_.path()));
  EXPECT_EQ(mounts_at(mount_.path()), 1);
}

TEST_F(MountTest, OneWhoseDaemonIsStoppedIsNotAsked) {
  kill(mount_.daemon(), SIGSTOP);
  Start second(mount_.path() + "/");
  const int code = second.exit_code();
  kill(mount_.daemon(), SIGCONT);
  EXPECT_EQ(code, 1);
  EXPECT_THAT(second.words(), HasSubstr("is mounted there already"));
}

TEST_F(MountPoint, MayHaveABlankInItsName) {
  Start first(place());
  ASSERT_TRUE(eventually([&] { return first.serves(); })) << first.words();
  Start second(place());
  EXPECT_EQ(second.exit_code(), 1);
  EXPECT_THAT(second.words(), HasSubstr(place() + ": a lockfs (memory:) is mounted there"));
  first.stop();
  EXPECT_EQ(first.exit_code(), 0);
  EXPECT_EQ(mounts_at(place()), 0);
}

TEST_F(MountPoint, OfFourStartsAtOnceOneServes) {
  std::array<int, 2> gate{};
  ASSERT_EQ(pipe2(gate.data(), O_CLOEXEC), 0);
  std::vector<std::unique_ptr<Start>> starts;
  for (int i = 0; i < 4; ++i) {
    starts.push_back(std::make_unique<Start>(place(), gate[0]));
  }
  EXPECT_EQ(write_command(gate[1], "1234"), 0);
  close(gate[0]);
  close(gate[1]);
  const auto serving = [&] {
    return std::count_if(starts.begin(), starts.end(), [](const auto& s) { return s->serves(); });
  };
  ASSERT_TRUE(eventually([&] { return serving() == 1; }));
  int refused = 0;
  for (const auto& start : starts) {
    if (start->serves()) continue;
    EXPECT_EQ(start->exit_code(), 1) << start->words();
    EXPECT_THAT(start->words(), HasSubstr(place() + ": a"));
    ++refused;
  }
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(mounts_at(place()), 1);
}

TEST_F(MountPoint, IsGuardedUntilTheMountAnswersAndNoLonger) {
  auto turn = MountTurn::take(place());
  ASSERT_TRUE(turn) << turn.error();
  Start early(place());
  EXPECT_EQ(early.exit_code(), 1);
  EXPECT_THAT(early.words(), HasSubstr(place() + ": another lockfs is being mounted there"));
  turn->end();
  Start served(place());
  ASSERT_TRUE(eventually([&] { return served.serves(); })) << served.words();
  EXPECT_EQ(umount2(place().c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(MountTurn::take(place()));
}

TEST_F(MountPoint, ThatIsAnotherOneHasATurnOfItsOwn) {
  std::vector<tl::expected<MountTurn, std::string>> turns;
  for (int i = 0; i < 8; ++i) {  // Made one after the other, they have inodes side by side.
    const std::string other = place() + "/" + std::to_string(i);
    ASSERT_EQ(mkdir(other.c_str(), 0700), 0);
    turns.push_back(MountTurn::take(other));
    EXPECT_TRUE(turns.back()) << turns.back().error();
  }
  for (int i = 0; i < 8; ++i) rmdir((place() + "/" + std::to_string(i)).c_str());
}

// Who may read the directory may lock it.
TEST_F(MountPoint, IsKeptFromNobodyByAnotherUser) {
  const Fd directory(open(place().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(flock_of(directory.get(), LOCK_EX | LOCK_NB), 0);
  Start served(place());
  EXPECT_TRUE(eventually([&] { return served.serves(); })) << served.words();
}

// For users without a directory of their own.
TEST_F(MountPoint, IsGuardedByItselfWhereNothingElseIsToBeHad) {
  Child child([&] {
    if (unshare(CLONE_NEWNS) != 0) return 1;
    mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (mount("none", "/run", "tmpfs", MS_RDONLY, nullptr) != 0) return 2;
    if (turns_file()) return 3;
    const Fd directory(open(place().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (flock_of(directory.get(), LOCK_EX | LOCK_NB) != 0) return 4;
    if (MountTurn::take(place())) return 5;
    flock_of(directory.get(), LOCK_UN);
    return MountTurn::take(place()) ? 0 : 6;
  });
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(MountPoint, ThatShowsAnotherFilesystemIsFree) {
  Start below(place());
  ASSERT_TRUE(eventually([&] { return below.serves(); })) << below.words();
  ASSERT_EQ(mount("none", place().c_str(), "tmpfs", 0, nullptr), 0);
  Start above(place());
  EXPECT_TRUE(eventually([&] { return above.serves(); })) << above.words();
}

}  // namespace
}  // namespace lockfs::test
