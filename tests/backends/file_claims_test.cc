// SPDX-License-Identifier: MIT
// The claims of two mounts on one directory, without the mounts; and what others may have put into
// the directory.
#include "backends/file/file_claims.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "tests/support/mount.h"

namespace lockfs {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

/// One mount: it remembers what it was told.
class Node final : public ClaimEvents {
 public:
  Node(const std::string& directory, const std::string& name) : claims_(directory, name, *this) {}
  void granted(ClaimId /*claim*/, Mode /*mode*/, TokenBlock /*tokens*/) override {
    end_ = LockErrc::kOk;
  }
  void failed(ClaimId /*claim*/, LockErrc why) override { end_ = why; }
  void contended(ClaimId /*claim*/) override {}
  void lost(ClaimId /*claim*/, std::string_view why) override { lost_ = why; }
  void reach_changed() override { ++reach_changes_; }
  void answered(QueryId /*query*/, LockErrc result, std::vector<RemoteLock> locks) override {
    end_ = result;
    locks_ = std::move(locks);
  }

  LockErrc take(const std::string& name, const std::string& lockspace = "default") {
    claims_.acquire(ClaimId{++claim_}, lockspace, name, Mode::kEX, true);
    return end_;
  }
  LockErrc pin(const std::string& name, const std::string& lockspace = "default") {
    claims_.pin(QueryId::kNone, lockspace, name, Pin{}, false);
    return end_;
  }
  LockErrc unpin(const std::string& name) {
    claims_.unpin(QueryId::kNone, "default", name);
    return end_;
  }
  LockErrc inspect(const std::string& name, const std::string& lockspace = "default") {
    claims_.inspect(QueryId::kNone, lockspace, name);
    return end_;
  }
  LockErrc list(const std::string& lockspace = "default") {
    claims_.list(QueryId::kNone, lockspace);
    return end_;
  }
  const std::vector<RemoteLock>& locks() const { return locks_; }
  const std::string& lost() const { return lost_; }
  const std::string& trouble() { return claims_.trouble(); }
  int reach_changes() const { return reach_changes_; }
  FileClaims& claims() { return claims_; }

 private:
  LockErrc end_ = LockErrc::kOk;
  std::vector<RemoteLock> locks_;
  std::string lost_;
  int reach_changes_ = 0;
  uint64_t claim_ = 0;
  FileClaims claims_;
};

class Claims : public testing::Test {
 protected:
  Claims() {
    alarm(20);  // What waits is ended by it.
    path_ = mkdtemp(path_.data());
    fs::create_directory(path_ + "/default");
  }
  ~Claims() override {
    alarm(0);
    umount2(path_.c_str(), MNT_DETACH);
    fs::remove_all(path_);
    fs::remove_all(path_ + ".old");
  }
  std::string lock(const std::string& name) const { return path_ + "/default/" + name; }
  static std::string text(const std::string& file) {
    std::ostringstream out;
    out << std::ifstream(file).rdbuf();
    return out.str();
  }
  std::string path_ = "/tmp/lockfs-claims-XXXXXX";
};

// --- What is no lock.

TEST_F(Claims, OnWhatIsNoPlainFileAreRefusedAndNothingWaits) {
  Node node(path_, "one");
  ASSERT_EQ(mkfifo(lock("fifo").c_str(), 0666), 0);
  fs::create_directory(lock("directory"));
  fs::create_symlink("/dev/null", lock("link"));
  ASSERT_EQ(mknod(lock("socket").c_str(), S_IFSOCK | 0666, 0), 0);
  for (const char* name : {"fifo", "directory", "link", "socket"}) {
    EXPECT_EQ(node.take(name), LockErrc::kInvalid) << name;
    EXPECT_EQ(node.pin(name), LockErrc::kInvalid) << name;
    EXPECT_EQ(node.unpin(name), LockErrc::kInvalid) << name;
    EXPECT_EQ(node.inspect(name), LockErrc::kOk) << name;
    EXPECT_THAT(node.locks(), IsEmpty()) << name;
  }
  ASSERT_EQ(node.pin("lock"), LockErrc::kOk);
  EXPECT_EQ(node.list(), LockErrc::kOk);
  EXPECT_THAT(node.locks(), SizeIs(1)) << "the lock is listed beside them";
}

TEST_F(Claims, OnAFileWithASecondNameAreRefusedAndItIsNotWritten) {
  Node node(path_, "one");
  const std::string victim = path_ + "/victim";
  std::ofstream(victim) << "mine" << std::flush;
  fs::create_hard_link(victim, lock("job"));
  EXPECT_EQ(node.take("job"), LockErrc::kInvalid);
  EXPECT_EQ(node.pin("job"), LockErrc::kInvalid);
  EXPECT_EQ(text(victim), "mine");
  fs::remove(victim);
  EXPECT_EQ(node.take("job"), LockErrc::kOk) << "it has one name now";
}

TEST_F(Claims, OfWhoHoldsAFileWithASecondNameAreSeen) {
  Node node(path_, "one");
  Node other(path_, "two");
  ASSERT_EQ(other.take("job"), LockErrc::kOk);
  fs::create_hard_link(lock("job"), path_ + "/copy");
  EXPECT_EQ(node.inspect("job"), LockErrc::kOk);
  ASSERT_THAT(node.locks(), SizeIs(1));
  EXPECT_EQ(node.locks()[0].claims[0].mode, Mode::kEX);
}

TEST_F(Claims, InALinkedLockspaceAreRefusedAndNothingIsMadeThere) {
  Node node(path_, "one");
  const std::string victim = path_ + ".old";
  fs::create_directory(victim);
  std::ofstream(victim + "/passwd") << "root" << std::flush;
  fs::create_symlink(victim, path_ + "/linked");
  EXPECT_EQ(node.take("passwd", "linked"), LockErrc::kUnreachable);
  EXPECT_EQ(node.pin("new", "linked"), LockErrc::kUnreachable);
  EXPECT_EQ(node.inspect("passwd", "linked"), LockErrc::kUnreachable);
  EXPECT_EQ(node.list("linked"), LockErrc::kUnreachable);
  EXPECT_EQ(text(victim + "/passwd"), "root");
  EXPECT_FALSE(fs::exists(victim + "/new"));
}

// --- What nobody can tell.

/// No descriptor can be had while it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit none = before_;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

constexpr auto kNeedsDescriptors =
    "the sanitizer looks at memory by a pipe, and takes none for a broken object";

TEST_F(Claims, OfOthersAreNotShownAsFreeWhenDescriptorsRunOut) {
  if (lockfs::test::kSanitized) GTEST_SKIP() << kNeedsDescriptors;
  Node node(path_, "one");
  Node other(path_, "two");
  ASSERT_EQ(other.take("job"), LockErrc::kOk);
  ASSERT_EQ(other.pin("pinned"), LockErrc::kOk);
  {
    const NoDescriptors none;
    for (const char* name : {"job", "pinned"}) {
      EXPECT_EQ(node.inspect(name), LockErrc::kUnreachable) << name;
    }
    EXPECT_EQ(node.list(), LockErrc::kUnreachable);
    EXPECT_EQ(node.take("job"), LockErrc::kUnreachable);
  }
  EXPECT_EQ(node.list(), LockErrc::kOk);
  EXPECT_THAT(node.locks(), SizeIs(2));
}

// The folder can be opened, the file in it cannot.
TEST_F(Claims, OfOthersAreNotShownAsFreeWhenOneDescriptorIsMissing) {
  if (lockfs::test::kSanitized) GTEST_SKIP() << kNeedsDescriptors;
  Node node(path_, "one");
  ASSERT_EQ(Node(path_, "two").pin("pinned"), LockErrc::kOk);
  const int next = dup(0);
  close(next);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  for (int more = 0; more < 4; ++more) {
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(next + more);
    setrlimit(RLIMIT_NOFILE, &few);
    const LockErrc result = node.inspect("pinned");
    const LockErrc listed = node.list();
    setrlimit(RLIMIT_NOFILE, &before);
    if (result == LockErrc::kOk) return;
    EXPECT_EQ(result, LockErrc::kUnreachable) << more;
    EXPECT_EQ(listed, LockErrc::kUnreachable) << more;
  }
  FAIL() << "a look takes no more than three";
}

TEST_F(Claims, AreNotFreeWhenTheDirectoryIsGone) {
  Node node(path_, "one");
  EXPECT_EQ(node.inspect("job", "never"), LockErrc::kOk) << "a lockspace that nobody has used";
  EXPECT_EQ(node.list("never"), LockErrc::kOk);
  fs::remove_all(path_);
  EXPECT_EQ(node.inspect("job"), LockErrc::kUnreachable);
  EXPECT_EQ(node.list(), LockErrc::kUnreachable);
  EXPECT_EQ(node.take("job"), LockErrc::kUnreachable);
}

// --- What is said of it.

TEST_F(Claims, SayThatTheDirectoryIsGoneUntilItIsThereAgain) {
  Node node(path_, "one");
  EXPECT_EQ(node.trouble(), "");
  fs::remove_all(path_);
  ASSERT_EQ(node.take("job"), LockErrc::kUnreachable);
  EXPECT_EQ(node.trouble(), path_ + ": No such file or directory");
  ASSERT_EQ(node.inspect("job"), LockErrc::kUnreachable);
  EXPECT_EQ(node.reach_changes(), 1) << "the same";
  fs::create_directory(path_);
  while (node.inspect("job") != LockErrc::kOk) {  // It is another directory, perhaps.
    EXPECT_THAT(node.trouble(), HasSubstr(path_ + " or a directory in it was replaced"));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(node.trouble(), "");
  EXPECT_EQ(node.take("job"), LockErrc::kOk);
}

TEST_F(Claims, SayThatTheFilesystemIsFullUntilSomethingIsWritten) {
  if (mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "cannot mount";
  Node node(path_, "one");
  ASSERT_EQ(node.take("first"), LockErrc::kOk);
  std::ofstream(path_ + "/filler") << std::string(1 << 17, 'x') << std::flush;
  ASSERT_EQ(node.take("second"), LockErrc::kUnreachable);
  EXPECT_EQ(node.trouble(), lock("second") + ": No space left on device");
  ASSERT_EQ(node.take("third"), LockErrc::kUnreachable);
  EXPECT_EQ(node.reach_changes(), 1) << "it is said once, not for each name";
  ASSERT_EQ(node.inspect("first"), LockErrc::kOk);
  EXPECT_NE(node.trouble(), "") << "that it can be read says nothing of that";
  fs::remove(path_ + "/filler");
  EXPECT_EQ(node.take("second"), LockErrc::kOk);
  EXPECT_EQ(node.trouble(), "");
}

// --- Directories that are replaced.

void expect_lost_within_a_look(Node& node) {
  const auto look = node.claims().next_retry();
  ASSERT_TRUE(look);
  EXPECT_LE(*look - FileClaims::Clock::now(), LockDirectory::kCheck);
  std::this_thread::sleep_until(*look);
  node.claims().retry();
  EXPECT_THAT(node.lost(), HasSubstr("/default/job"));
}

TEST_F(Claims, AreLostWhenTheirDirectoryOrTheLockspaceIsRenamed) {
  for (const std::string& moved : {path_, path_ + "/default"}) {
    Node holder(path_, "one");
    Node other(path_, "two");
    ASSERT_EQ(holder.take("job"), LockErrc::kOk);
    ASSERT_EQ(other.inspect("job"), LockErrc::kOk);
    fs::rename(moved, path_ + ".old");
    fs::create_directories(path_ + "/default");
    EXPECT_EQ(other.take("job"), LockErrc::kUnreachable) << "who held it must be told before";
    expect_lost_within_a_look(holder);
    fs::remove_all(path_ + ".old");
  }
}

TEST_F(Claims, StayWhenAnotherNameIsRenamed) {
  Node holder(path_, "one");
  ASSERT_EQ(holder.take("job"), LockErrc::kOk);
  fs::create_directory(path_ + "/other");
  fs::rename(path_ + "/other", path_ + "/another");
  holder.claims().retry();
  EXPECT_EQ(holder.lost(), "");
  EXPECT_EQ(Node(path_, "two").take("job"), LockErrc::kWouldBlock);
}

}  // namespace
}  // namespace lockfs
