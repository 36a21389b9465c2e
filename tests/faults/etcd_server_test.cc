// SPDX-License-Identifier: MIT
// What is etcd's own: etcdctl on the same locks, logins, clusters that lose members, keys that
// somebody deletes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/contract/witness.h"
#include "tests/faults/etcd_test.h"
#include "tests/support/networks.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

TEST_F(Etcd, EtcdctlAndTheMountExcludeEachOtherInOneQueue) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const std::string order = server.directory() + "/order";
  const auto note = [&](const std::string& who) { return "echo " + who + " >>" + order; };
  const int held = open_lock(mount, "job");
  ASSERT_EQ(write_command(held, "EX"), 0);
  const auto keys = [&] {
    const std::string all = server.ctl("get --prefix --keys-only default/job/");
    return static_cast<size_t>(std::count(all.begin(), all.end(), '/')) / 2;
  };
  const auto other = foreign(server, "default/job", note("etcdctl"));
  ASSERT_TRUE(eventually([&] { return keys() == 2; }));
  // A mount waits once, whoever of it waits; the second is another mount.
  const Mount second({}, source(server));
  const auto next = std::make_unique<Child>([&] {
    const int fd = open(second.lock("job").c_str(), O_RDWR | O_CREAT, 0666);
    const int result = write_command(fd, "EX timeout=20s");
    if (result == 0) std::ofstream(order, std::ios::app) << "mount\n";
    return result != 0 ? result : write_command(fd, "UN");
  });
  ASSERT_TRUE(eventually([&] { return keys() == 3; }));
  const auto last = foreign(server, "default/job", note("etcdctl-again"));
  ASSERT_TRUE(eventually([&] { return keys() == 4; }));
  EXPECT_TRUE(eventually([&] { return waiters(mount, "job") == 3; })) << slurp(mount.lock("job"));
  EXPECT_THAT(server.ctl("get --prefix --print-value-only default/job/"), HasSubstr("lockfs EX"));
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(other->wait(), 0);
  EXPECT_EQ(next->wait(), 0);
  EXPECT_EQ(last->wait(), 0);
  std::istringstream lines(slurp(order));
  std::vector<std::string> all;
  for (std::string line; std::getline(lines, line);) all.push_back(line);
  EXPECT_THAT(all, ElementsAre("etcdctl", "mount", "etcdctl-again"));
}

TEST_F(Etcd, NamesThatNoFileCanHaveBreakNoListing) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const auto put = [&](const std::string& name) {
    server.ctl("put 'default/" + name + "/1' x >/dev/null");
  };
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string(".ctl"),
        std::string(300, 'x'), std::string(1100, 'x'), std::string(100, '/')}) {
    put(name);
  }
  for (const std::string name : {"a/b", "plain", "zz\ntop"}) put(name);
  ASSERT_TRUE(eventually([&] { return access(mount.lock("zz\ntop").c_str(), F_OK) == 0; }));
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(mount.path() + "/default")) {
    names.push_back(entry.path().filename());
  }
  EXPECT_THAT(names, testing::UnorderedElementsAre(".ctl", "a%2Fb", "plain", "zz\ntop"));
}

// Who asked on the mount before goes first, who asked after it does not.
TEST_F(Etcd, NobodyOfAMountOvertakesEtcdctl) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const std::string order = server.directory() + "/order";
  const int held = open_lock(mount, "turn");
  ASSERT_EQ(write_command(held, "EX"), 0);
  std::vector<std::unique_ptr<Child>> all;
  const auto ask = [&](const std::string& who) {
    all.push_back(std::make_unique<Child>([&mount, who, order] {
      const int fd = open(mount.lock("turn").c_str(), O_RDWR | O_CREAT, 0666);
      const int result = write_command(fd, "EX timeout=20s");
      if (result == 0) std::ofstream(order, std::ios::app) << who << "\n";
      return result != 0 ? result : write_command(fd, "UN");
    }));
    return eventually([&] { return waiters(mount, "turn") == all.size(); });
  };
  ASSERT_TRUE(ask("before"));
  all.push_back(foreign(server, "default/turn", "echo etcdctl >>" + order));
  ASSERT_TRUE(eventually([&] { return waiters(mount, "turn") == 2; }));
  for (const std::string who : {"after", "later", "last"}) ASSERT_TRUE(ask(who));
  ASSERT_EQ(write_command(held, "UN"), 0);
  for (const auto& child : all) EXPECT_EQ(child->wait(), 0);
  EXPECT_EQ(slurp(order), "before\netcdctl\nafter\nlater\nlast\n");
}

TEST_F(Etcd, WhatEtcdctlHoldsIsShownAndRefusedAndWaitedFor) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const std::string flag = server.directory() + "/go";
  const auto holds =
      foreign(server, "default/theirs", "until [ -e " + flag + " ]; do sleep 0.05; done");
  ASSERT_TRUE(eventually([&] { return access(mount.lock("theirs").c_str(), F_OK) == 0; }));
  const std::string shown = slurp(mount.lock("theirs"));
  EXPECT_EQ(picture_value(shown, "mode"), "EX") << shown;
  EXPECT_THAT(shown, HasSubstr("etcd key default/theirs/"));
  EXPECT_EQ(exclusive(mount, "theirs"), EEXIST);
  const int fd = open_lock(mount, "theirs");
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
  EXPECT_EQ(write_command(fd, "CR try"), EAGAIN);
  EXPECT_EQ(write_command(fd, "PR timeout=100ms"), ETIMEDOUT);
  std::ofstream(flag) << "x";
  EXPECT_EQ(write_command(fd, "PR timeout=10s"), 0);
  EXPECT_EQ(holds->wait(), 0);
  // Shared modes keep it out as well.
  const std::string free = server.directory() + "/free";
  const auto waits = foreign(server, "default/theirs", "test -e " + free);
  ASSERT_TRUE(eventually([&] { return waiters(mount, "theirs") == 1; }));
  std::ofstream(free) << "x";
  ASSERT_EQ(write_command(fd, "UN"), 0);
  EXPECT_EQ(waits->wait(), 0);
}

TEST_F(Etcd, TheTokenIsTheRevisionThatMadeTheKey) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const int fd = open_lock(mount, "token");
  ASSERT_EQ(write_command(fd, "EX"), 0);
  const std::string json = server.ctl("get --prefix -w json default/token/");
  EXPECT_THAT(json, HasSubstr("\"create_revision\":" + std::to_string(token_of(fd)) + ","));
}

// A conversion takes a token from later than when those who wait have asked.
TEST_F(Etcd, TokensGrowThoughAConversionOvertakesWhoWaits) {
  const EtcdServer server;
  const Mount one({}, source(server));
  const Mount two({}, source(server));
  const int holds = open_lock(one, "grow");
  ASSERT_EQ(write_command(holds, "PR"), 0);
  Common<std::atomic<uint64_t>> token;
  Child waits([&] {
    const int fd = open(two.lock("grow").c_str(), O_RDWR | O_CREAT, 0666);
    const int result = write_command(fd, "EX timeout=20s");
    *token = token_of(fd);
    return result;
  });
  ASSERT_TRUE(eventually([&] { return waiters(one, "grow") == 1; }));
  ASSERT_EQ(write_command(holds, "EX"), 0);
  const uint64_t first = token_of(holds);
  ASSERT_EQ(write_command(holds, "PR"), 0);
  ASSERT_EQ(write_command(holds, "EX"), 0);
  const uint64_t second = token_of(holds);
  EXPECT_GT(second, first);
  ASSERT_EQ(write_command(holds, "UN"), 0);
  EXPECT_EQ(waits.wait(), 0);
  EXPECT_GT(token->load(), second);
}

TEST_F(Etcd, ADeletedKeyAndARevokedLeaseAreLosses) {
  const EtcdServer server;
  const Mount mount({}, source(server));
  const int deleted = open_lock(mount, "deleted");
  const int revoked = open_lock(mount, "revoked");
  ASSERT_EQ(write_command(deleted, "EX"), 0);
  ASSERT_EQ(write_command(revoked, "EX"), 0);
  server.ctl("del --prefix default/deleted/");
  EXPECT_TRUE(eventually([&] { return is_lost(deleted); }));
  EXPECT_THAT(own(deleted, "this.error"), HasSubstr("somebody deleted it"));
  EXPECT_FALSE(is_lost(revoked));
  const std::string key = server.ctl("get --prefix --keys-only default/revoked/");
  const std::string lease = key.substr(16, key.find('\n') - 16);
  server.ctl("lease revoke " + lease);
  EXPECT_TRUE(eventually([&] { return is_lost(revoked); })) << lease << mount.log();
  ASSERT_EQ(write_command(revoked, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return write_command(revoked, "EX try") == 0; })) << mount.log();
}

TEST_F(Etcd, AUserNeedsNoMoreThanItsPrefixAndPasswordsAreNotShown) {
  const EtcdServer server;
  server.ctl("user add root:secret");
  server.ctl("user grant-role root root");
  server.ctl("role add locks");
  server.ctl("role grant-permission --prefix locks readwrite us/");
  server.ctl("user add jane:geheim");
  server.ctl("user grant-role jane locks");
  server.ctl("auth enable");
  const auto as = [&](const std::string& login, const std::string& rest = "?prefix=us%2F") {
    return "etcd://" + login + server.endpoints() + rest;
  };
  EXPECT_THAT(refusal(as("jane:wrong@")), HasSubstr("authentication failed"));
  const Mount mount({}, as("jane:geheim@"));
  EXPECT_EQ(exclusive(mount, "in"), 0) << mount.log();
  for (const std::string& text :
       {slurp("/proc/mounts"), slurp(mount.path() + "/.lockfs/config"), mount.log()}) {
    EXPECT_THAT(text, testing::Not(HasSubstr("geheim")));
  }
  EXPECT_THAT(server.ctl("--user root:secret get --prefix --keys-only us/"),
              HasSubstr("us/default/in/"));
  const std::string file = server.directory() + "/password";
  std::ofstream(file) << "geheim\n";
  const Mount by_file({}, as("jane@", "?prefix=us%2F&password-file=" + file));
  EXPECT_EQ(exclusive(by_file, "in"), EEXIST);
  // Elsewhere it may do nothing, and is told so.
  EXPECT_THAT(refusal(as("jane:geheim@", "?prefix=them%2F")), HasSubstr("permission denied"));
}

TEST_F(Etcd, ByTlsItIsReachedWhenItProvesWhoItIs) {
  const Certificate certificate;
  const int port = free_port();
  const std::string also = std::to_string(port);
  // Two listeners: one by TLS for the mount, one for the test.
  const EtcdServer server(
      1, {"--cert-file", certificate.file(), "--key-file", certificate.key(),
          "--listen-client-urls", "https://127.0.0.1:" + also + ",http://127.0.0.1:PORT"});
  const auto url = [&](const std::string& host, const std::string& rest) {
    return "etcds://" + host + ":" + also + rest;
  };
  EXPECT_TRUE(share(url("127.0.0.1", "?ca=" + certificate.file()), source(server)));
  EXPECT_TRUE(share(url("localhost", "?ca=" + certificate.file()), source(server)));
  const Mount stranger({}, url("127.0.0.1", ""));
  EXPECT_EQ(exclusive(stranger, "x"), EHOSTUNREACH);
  EXPECT_THAT(stranger.log(), HasSubstr("etcd: 127.0.0.1:" + also + ": "));
}

TEST_F(Etcd, AFullClusterGrantsNothingNewAndLetsGo) {
  const EtcdServer server(1, {"--quota-backend-bytes", "100000"});
  const Mount mount({}, source(server));
  const int held = open_lock(mount, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  ASSERT_TRUE(eventually([&] {
    server.ctl("put big " + std::string(60000, 'x') + " 2>&1");
    return server.ctl("alarm list").find("NOSPACE") != std::string::npos;
  }));
  EXPECT_EQ(exclusive(mount, "full"), EHOSTUNREACH);
  EXPECT_THAT(mount.log(), HasSubstr("database space exceeded"));
  const auto state = [&] { return slurp(mount.path() + "/.lockfs/traits"); };
  EXPECT_THAT(state(), HasSubstr("up, but it refuses: etcdserver: mvcc: database space exceeded"));
  EXPECT_FALSE(is_lost(held));
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_TRUE(eventually([&] { return server.ctl("get --prefix --keys-only default/") == ""; }));
  server.ctl("del big");
  server.ctl("compact " + revision(server));
  server.ctl("defrag 2>&1");
  server.ctl("alarm disarm");
  EXPECT_TRUE(works(mount));
  EXPECT_THAT(state(), testing::Not(HasSubstr("but it refuses")));
}

TEST_F(Etcd, WhatIsCompactedIsNotMissed) {
  const EtcdServer server;
  const Mount one({}, source(server));
  const Mount two({}, source(server));
  const int held = open_lock(one, "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(works(one));
    server.ctl("compact " + revision(server));
    EXPECT_TRUE(works(two));
    EXPECT_EQ(exclusive(two, "held"), EEXIST);
  }
  EXPECT_FALSE(is_lost(held));
}

class EtcdCluster : public Etcd {
 protected:
  void SetUp() override {
    Etcd::SetUp();
    if (IsSkipped()) return;
    if (!Networks::is_here()) GTEST_SKIP() << "no network namespaces here";
    networks_ = std::make_unique<Networks>(3);
    cluster_ = std::make_unique<EtcdServer>(3, EtcdServer::Words{}, networks_.get());
    for (int i = 0; i < 2; ++i) mounts_.push_back(mount(i));
  }
  ~EtcdCluster() override {
    close_all();
    mounts_.clear();
    cluster_.reset();
  }
  /// Which asks that member first.
  std::unique_ptr<Mount> mount(size_t first) {
    std::string url = "etcd://";
    for (size_t i = 0; i < 3; ++i) {
      const size_t member = (first + i) % 3;
      url += (i == 0 ? "" : ",") + cluster_->host(member) + ":" +
             std::to_string(cluster_->port(member));
    }
    return std::make_unique<Mount>(std::vector<std::string>{}, url + "?lease=6s");
  }

  std::unique_ptr<Networks> networks_;
  std::unique_ptr<EtcdServer> cluster_;
  std::vector<std::unique_ptr<Mount>> mounts_;
};

TEST_F(EtcdCluster, ALeaderThatIsKilledTakesNothingFromAHolder) {
  const int held = open_lock(*mounts_[0], "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  for (int i = 0; i < 2; ++i) {
    const size_t leader = cluster_->leader();
    cluster_->kill(leader);
    for (const auto& mount : mounts_) EXPECT_TRUE(works(*mount));
    EXPECT_FALSE(is_lost(held)) << own(held, "this.error");
    EXPECT_TRUE(eventually([&] { return exclusive(*mounts_[1], "held") == EEXIST; }));
    cluster_->start(leader);
  }
}

// A member by itself answers nothing: whoever was connected to it goes to another one.
TEST_F(EtcdCluster, AMemberThatIsPartedIsLeft) {
  const int held = open_lock(*mounts_[0], "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  for (size_t member = 0; member < 3; ++member) {
    networks_->part(member, true);
    for (const auto& mount : mounts_) EXPECT_TRUE(works(*mount)) << member;
    EXPECT_FALSE(is_lost(held)) << own(held, "this.error") << mounts_[0]->log();
    EXPECT_TRUE(eventually([&] { return exclusive(*mounts_[1], "held") == EEXIST; }));
    networks_->part(member, false);
    cluster_->leader();
    EXPECT_TRUE(eventually([&] {
      return cluster_->ctl("endpoint health 2>&1").find("unhealthy") == std::string::npos;
    }));
  }
}

TEST_F(EtcdCluster, WithoutAQuorumNothingIsGrantedAndAHolderIsToldInTime) {
  const int held = open_lock(*mounts_[0], "held");
  ASSERT_EQ(write_command(held, "EX"), 0);
  for (const size_t member : {1, 2}) networks_->part(member, true);
  const auto begin = Clock::now();
  while (!is_lost(held)) {
    ASSERT_LT(since(begin), 8);
    const auto asked = Clock::now();
    EXPECT_NE(exclusive(*mounts_[1], "held"), 0);
    EXPECT_NE(exclusive(*mounts_[0], "new"), 0);
    EXPECT_LT(since(asked), 3);
  }
  EXPECT_EQ(exclusive(*mounts_[0], "new"), EHOSTUNREACH);
  for (const size_t member : {1, 2}) networks_->part(member, false);
  for (const auto& mount : mounts_) EXPECT_TRUE(works(*mount, 20));
  EXPECT_TRUE(eventually([&] { return exclusive(*mounts_[1], "held") == 0; }, 20));
}

TEST_F(Etcd, UrlsThatMeanNothingAreRefusedInWords) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"etcd:", "takes //HOST:PORT,HOST:PORT"},
      {"etcd://", "a host is missing"},
      {"etcd://a,,b", "a host is missing"},
      {"etcd://h:0", "the port '0'"},
      {"etcd://h?lease=5", "is not a duration"},
      {"etcd://h?lease=2500ms", "takes whole seconds"},
      {"etcd://h?lease=1s", "2s to 10m"},
      {"etcd://h?ca=x", "is unknown; known: lease"},
      {"etcds://h?ca=/nowhere", "cannot read"},
      {"etcd://h?password-file=/nowhere", "cannot read"},
      {"etcd://u@h", "a user goes with a password"}};
  for (const auto& [url, words] : wrong) EXPECT_THAT(refusal(url), HasSubstr(words)) << url;
}

}  // namespace
}  // namespace lockfs::test
