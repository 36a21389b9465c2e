// SPDX-License-Identifier: MIT
// What is LDLM's own: how its server is reached, what it refuses, keys and their sessions; and its
// own Python client on the same locks.
#include "tests/support/ldlm_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/contract/witness.h"
#include "tests/faults/descriptors.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Clock = std::chrono::steady_clock;

std::chrono::milliseconds since(Clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - then);
}

class LdlmAlone : public DescriptorTest {};

class Ldlm : public DescriptorTest {
 protected:
  void SetUp() override {
    if (!LdlmServer::is_here()) GTEST_SKIP() << LdlmServer::missing();
  }
  static std::string source(int port, const std::string& rest = "?lease=2s",
                            const std::string& login = "") {
    return "ldlm://" + login + "127.0.0.1:" + std::to_string(port) + rest;
  }
  // What a command on a new descriptor ends with, which goes on holding.
  int ask(const Mount& mount, const std::string& name, const std::string& command) {
    return write_command(open_lock(mount, name), command);
  }
  static int ask_and_leave(const Mount& mount, const std::string& name,
                           const std::string& command) {
    const int fd = open(mount.lock(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    const int result = write_command(fd, command);
    close(fd);
    return result;
  }
  static bool is_lost(int fd) { return write_command(fd, "renew") == ESTALE; }
  static size_t count_of(const std::string& text, const std::string& words) {
    size_t count = 0;
    for (size_t at = 0; (at = text.find(words, at)) != std::string::npos; ++at) ++count;
    return count;
  }
};

TEST_F(LdlmAlone, UrlsThatMeanNothingAreRefusedInWords) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"ldlm:", "takes //HOST:PORT"},
      {"ldlm://", "a host is missing"},
      {"ldlm://h:0", "the port '0'"},
      {"ldlm://h/x", "takes no path"},
      {"ldlm://u:p@h", "a server has no users"},
      {"ldlm://:a%0Ab@h", "printable ASCII"},
      {"ldlm://h?lease=5", "is not a duration"},
      {"ldlm://h?lease=2500ms", "whole seconds, 2s to 1m"},
      {"ldlm://h?lease=1s", "whole seconds, 2s to 1m"},
      {"ldlm://h?lease=2m", "whole seconds, 2s to 1m"},
      {"ldlm://h?ca=x", "is unknown; known: lease"},
      {"ldlm://h?password-file=/nowhere", "cannot read"},
      {"ldlms://h?ca=/nowhere", "cannot read"},
      {"ldlms://h?cert=/etc/passwd", "cert and key go together"}};
  for (const auto& [url, words] : wrong) EXPECT_THAT(refusal(url), HasSubstr(words)) << url;
}

TEST_F(LdlmAlone, WithoutAServerEveryAcquireAnswersWithinASecond) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "gRPC is not made for a sanitizer of threads";
#endif
  const Mount mount({}, "ldlm://127.0.0.1:" + std::to_string(free_port()));
  const auto begin = Clock::now();
  EXPECT_EQ(open(mount.lock("none").c_str(), O_RDWR | O_CREAT | O_EXCL, 0666), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  const int fd = open(mount.lock("none").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  EXPECT_EQ(write_command(fd, "EX"), EHOSTUNREACH);
  EXPECT_EQ(write_command(fd, "SLOT size=2 try"), EHOSTUNREACH);
  EXPECT_LT(since(begin), std::chrono::milliseconds(3500));
  EXPECT_THAT(mount.log(), HasSubstr("Connection refused"));
  close(fd);
}

TEST_F(Ldlm, PasswordsAreAskedForAndNotShown) {
  const LdlmServer server({"--password", "geheim"});
  for (const auto& [login, words] : std::vector<std::pair<std::string, std::string>>{
           {"", "missing credentials"}, {":wrong@", "invalid credentials"}}) {
    const Mount mount({}, source(server.port(), "", login));
    const auto asked = Clock::now();
    EXPECT_EQ(exclusive(mount, "in"), EHOSTUNREACH);
    EXPECT_LT(since(asked), std::chrono::milliseconds(800)) << "that is no matter of patience";
    for (int i = 0; i < 20; ++i) EXPECT_EQ(exclusive(mount, "in"), EHOSTUNREACH);
    EXPECT_THAT(mount.log(), HasSubstr(words));
    EXPECT_EQ(count_of(mount.log(), words), 1U);
  }
  const Mount mount({}, source(server.port(), "", ":geheim@"));
  EXPECT_EQ(exclusive(mount, "in"), 0) << mount.log();
  for (const std::string& text :
       {slurp("/proc/mounts"), slurp(mount.path() + "/.lockfs/config"), mount.log()}) {
    EXPECT_THAT(text, Not(HasSubstr("geheim")));
  }
  const std::string file = mount.path() + "-password";
  std::ofstream(file) << "geheim\n";
  const Mount by_file({}, source(server.port(), "?password-file=" + file));
  EXPECT_EQ(exclusive(by_file, "in"), EEXIST) << by_file.log();
  unlink(file.c_str());
}

TEST_F(Ldlm, ByTlsItIsReachedWhenBothProveWhoTheyAre) {
  const Certificate certificate;
  const LdlmServer server({"--tls_cert", certificate.file(), "--tls_key", certificate.key(),
                           "--client_ca", certificate.file()});
  const auto url = [&](const std::string& host, const std::string& rest) {
    return "ldlms://" + host + ":" + std::to_string(server.port()) + rest;
  };
  const std::string theirs = "ca=" + certificate.file();
  const std::string ours = "cert=" + certificate.file() + "&key=" + certificate.key();
  const Mount one({}, url("127.0.0.1", "?" + theirs + "&" + ours));
  const Mount two({}, url("localhost", "?" + theirs + "&" + ours));
  EXPECT_EQ(exclusive(one, "tls"), 0) << one.log();
  EXPECT_EQ(exclusive(two, "tls"), EEXIST) << two.log();
  for (const std::string& rest : {theirs, ours}) {
    const Mount stranger({}, url("127.0.0.1", "?" + rest));
    EXPECT_EQ(exclusive(stranger, "x"), EHOSTUNREACH) << rest;
    EXPECT_THAT(stranger.log(), HasSubstr("ldlm: ")) << rest;
  }
  const Mount plain({}, source(server.port()));
  EXPECT_EQ(exclusive(plain, "x"), EHOSTUNREACH);
}

TEST_F(Ldlm, WhatIsHeldIsRenewedAndWhatWaitsIsServedInItsOrder) {
  const LdlmServer server;
  const Mount one({}, source(server.port()));
  const Mount two({}, source(server.port()));
  const int held = open_lock(one, "long");
  ASSERT_EQ(write_command(held, "EX"), 0);
  const uint64_t token = token_of(held);
  const auto begin = Clock::now();
  while (since(begin) < std::chrono::seconds(5)) {
    ASSERT_EQ(exclusive(two, "long"), EEXIST);
    ASSERT_FALSE(is_lost(held)) << own(held, "this.error");
    usleep(2000);
  }
  Child waits([&] {
    const int fd = open(two.lock("long").c_str(), O_RDWR | O_CREAT, 0666);
    if (const int result = write_command(fd, "EX timeout=20s")) return result;
    return token_of(fd) > token ? 0 : EPROTO;
  });
  usleep(3000000);  // Longer than a lease: what is granted then is confirmed first,
  ASSERT_EQ(write_command(held, "UN"), 0);
  EXPECT_EQ(waits.wait(), 0) << two.log();
  ASSERT_EQ(write_command(held, "EX timeout=5s"), 0);
  const int next = open_lock(two, "long");
  Child lets_go([&] { return usleep(1500000) + write_command(held, "UN"); });
  ASSERT_EQ(write_command(next, "EX timeout=20s"), 0);
  EXPECT_EQ(lets_go.wait(), 0);
  for (const auto granted = Clock::now(); since(granted) < std::chrono::seconds(3);) {
    ASSERT_EQ(exclusive(one, "long"), EEXIST);  // and renewed as all is.
    usleep(2000);
  }
  // What is given back is asked for again: neither is in the other's way.
  for (int i = 0; i < 200; ++i) ASSERT_EQ(ask_and_leave(one, "again", "EX try"), 0) << i;
}

TEST_F(Ldlm, SlotsAreThoseOfAllMounts) {
  const LdlmServer server;
  const Mount one({}, source(server.port()));
  const Mount two({}, source(server.port()));
  const int first = open_lock(one, "three");
  const int second = open_lock(one, "three");
  ASSERT_EQ(write_command(first, "SLOT size=3"), 0);
  ASSERT_EQ(write_command(second, "SLOT size=3"), 0);
  EXPECT_EQ(ask(two, "three", "SLOT size=3 try"), 0);
  EXPECT_EQ(ask(two, "three", "SLOT size=3 try"), EAGAIN);
  EXPECT_EQ(ask(one, "three", "SLOT size=3 try"), EAGAIN);
  EXPECT_EQ(write_command(first, "EX try"), EAGAIN);
  Child waits([&] {
    return write_command(open(two.lock("three").c_str(), O_RDWR | O_CREAT, 0666),
                         "SLOT size=3 timeout=10s");
  });
  usleep(200000);
  ASSERT_EQ(write_command(second, "UN"), 0);
  EXPECT_EQ(waits.wait(), 0);
  EXPECT_TRUE(eventually([&] { return ask(two, "three", "SLOT size=3 try") == 0; }));
  EXPECT_EQ(write_command(first, "EX"), EDEADLK) << "who waits for the rest might wait for ever";
  EXPECT_EQ(own(first, "this.mode"), "SLOT") << "it has what it had";
}

TEST_F(Ldlm, ASlotIsConvertedToAllOfThemAndBack) {
  const LdlmServer server;
  const Mount one({}, source(server.port()));
  const Mount two({}, source(server.port()));
  const int fd = open_lock(one, "all");
  ASSERT_EQ(write_command(fd, "SLOT size=3"), 0);
  ASSERT_EQ(write_command(fd, "EX"), 0);
  EXPECT_EQ(ask(two, "all", "SLOT size=3 try"), EAGAIN);
  ASSERT_EQ(write_command(fd, "SLOT size=3"), 0);
  EXPECT_TRUE(eventually([&] { return ask(two, "all", "SLOT size=3 try") == 0; }));
}

TEST_F(Ldlm, OfALockThatHasOtherKeysNoneIsGiven) {
  const LdlmServer server;
  const Mount one({}, source(server.port()));
  const Mount two({}, source(server.port()));
  ASSERT_EQ(ask(one, "size", "SLOT size=3"), 0);
  EXPECT_EQ(ask(two, "size", "SLOT size=2"), EINVAL);
  EXPECT_EQ(ask(two, "size", "EX try"), EINVAL);
  EXPECT_EQ(ask(two, "size", "SLOT size=3 try"), 0);
}

TEST_F(Ldlm, WhatADeadDaemonHeldIsFreeAtOnce) {
  const LdlmServer server;
  const Mount one({}, source(server.port(), "?lease=1m"));
  const Mount two({}, source(server.port(), "?lease=1m"));
  ASSERT_EQ(ask(one, "dead", "EX"), 0);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(ask(one, "slots", "SLOT size=2"), 0);
  EXPECT_EQ(exclusive(two, "dead"), EEXIST);
  kill(one.daemon(), SIGKILL);
  const auto killed = Clock::now();
  EXPECT_EQ(ask(two, "dead", "EX timeout=10s"), 0);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask(two, "slots", "SLOT size=2 timeout=10s"), 0);
  EXPECT_LT(since(killed), std::chrono::seconds(1));
}

// The server frees what its connection held: there is nothing to be kept.
TEST_F(Ldlm, WithItsConnectionALockIsLostAtOnce) {
  LdlmServer server;
  Proxy network(server.port());
  const Mount far({}, source(network.port(), "?lease=1m"));
  const Mount near({}, source(server.port(), "?lease=1m"));
  const int held = open_lock(far, "cut");
  ASSERT_EQ(write_command(held, "EX"), 0);
  network.cut();
  EXPECT_TRUE(eventually([&] { return is_lost(held); }, 1)) << far.log();
  EXPECT_THAT(own(held, "this.error"), HasSubstr("ldlm: 127.0.0.1:"));
  EXPECT_EQ(ask(near, "cut", "EX timeout=5s"), 0);
  const int other = open_lock(far, "other");
  EXPECT_EQ(write_command(other, "EX timeout=5s"), 0);
  server.kill();
  EXPECT_TRUE(eventually([&] { return is_lost(other); }, 1)) << far.log();
  server.start();
  const std::string up = "lockfs_backend_up{lockspace=\"default\",backend=\"ldlm\"} 1\n";
  EXPECT_TRUE(eventually([&] {
    return slurp(far.path() + "/.lockfs/metrics").find(up) != std::string::npos;
  })) << "it is known, though nobody asks for a lock";
  EXPECT_TRUE(eventually([&] { return exclusive(far, "after") == 0; })) << far.log();
  EXPECT_THAT(far.log(), HasSubstr("is there again"));
}

// It ends a connection that does not acknowledge its answers for ten seconds, whatever the lease.
TEST_F(Ldlm, OfALongLeaseNoMoreIsUsedThanTheServersPatience) {
  const LdlmServer server;
  Proxy network(server.port());
  const Mount far({}, source(network.port(), "?lease=1m"));
  const int held = open_lock(far, "long");
  ASSERT_EQ(write_command(held, "EX"), 0);
  const uint64_t sent = network.sent();
  EXPECT_TRUE(eventually([&] { return network.sent() > sent; }, 4)) << "it is renewed so soon";
  network.mute(true);
  const auto muted = Clock::now();
  EXPECT_TRUE(eventually([&] { return is_lost(held); }, 15)) << far.log();
  EXPECT_LT(since(muted), std::chrono::milliseconds(9500));
  EXPECT_THAT(own(held, "this.error"), HasSubstr("did not answer"));
}

// Nobody says anything while one waits: that the way is broken is found out all the same.
TEST_F(Ldlm, WhoWaitsIsToldThatTheServerIsOutOfReach) {
  const LdlmServer server;
  Proxy network(server.port());
  const Mount far({}, source(network.port()));
  const Mount near({}, source(server.port()));
  ASSERT_EQ(ask(near, "wait", "EX"), 0);
  const int waits = open_lock(far, "wait");
  Child waiting([&] { return write_command(waits, "EX timeout=60s"); });
  usleep(500000);
  network.part(true);
  const auto parted = Clock::now();
  EXPECT_EQ(waiting.wait(), EHOSTUNREACH);
  EXPECT_LT(since(parted), std::chrono::seconds(4));
  network.part(false);
  EXPECT_TRUE(eventually([&] { return exclusive(far, "free") == 0; })) << far.log();
}

TEST_F(Ldlm, ARequestThatIsGivenUpHoldsNothing) {
  const LdlmServer server;
  const Mount one({}, source(server.port()));
  const Mount two({}, source(server.port()));
  const int held = open_lock(one, "late");
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(write_command(held, "EX timeout=5s"), 0) << i;
    Child late([&] {
      return write_command(open(two.lock("late").c_str(), O_RDWR | O_CREAT, 0666),
                           "EX timeout=" + std::to_string(10 + i) + "ms");
    });
    usleep(static_cast<useconds_t>(11000 + 1000 * i));
    ASSERT_EQ(write_command(held, "UN"), 0);
    const int result = late.wait();
    EXPECT_TRUE(result == 0 || result == ETIMEDOUT) << result;
  }
}

class LdlmBesidePython : public Ldlm {
 protected:
  void SetUp() override {
    Ldlm::SetUp();
    if (!IsSkipped() && !LdlmPython::is_here()) GTEST_SKIP() << LdlmPython::missing();
  }
  // Whether its client is given a key.
  static bool python_has(int port, const std::string& name, int size = 1) {
    const int result =
        LdlmPython::run(port, "sys.exit(0 if client.try_lock(args[0], size=int(args[1])) else 7)\n",
                        {name, std::to_string(size)});
    EXPECT_TRUE(result == 0 || result == 7) << result;
    return result == 0;
  }
  // Holds a key until it is killed.
  static std::unique_ptr<Child> python_holds(int port, const std::string& name, int size = 1) {
    const std::string sign = "/tmp/lockfs-python-" + std::to_string(getpid());
    auto holder = std::make_unique<Child>([&] {
      return LdlmPython::run(port,
                             "lock = client.lock(args[0], size=int(args[1]))\n"
                             "open(args[2], 'w').close()\n"
                             "time.sleep(600)\n",
                             {name, std::to_string(size), sign});
    });
    EXPECT_TRUE(eventually([&] { return unlink(sign.c_str()) == 0; }, 30));
    return holder;
  }
};

TEST_F(LdlmBesidePython, ExcludeEachOther) {
  const LdlmServer server;
  const Mount mount({}, source(server.port()));
  const int fd = open_lock(mount, "job");
  ASSERT_EQ(write_command(fd, "PR"), 0) << "towards others, that is as good as EX";
  EXPECT_FALSE(python_has(server.port(), "job"));
  ASSERT_EQ(write_command(fd, "UN"), 0);
  EXPECT_TRUE(python_has(server.port(), "job"));
  std::unique_ptr<Child> python = python_holds(server.port(), "job");
  EXPECT_EQ(exclusive(mount, "job"), EEXIST);
  EXPECT_EQ(write_command(fd, "EX try"), EAGAIN);
  Child waits([&] {
    return write_command(open(mount.lock("job").c_str(), O_RDWR | O_CREAT, 0666), "EX timeout=20s");
  });
  usleep(300000);
  python.reset();
  EXPECT_EQ(waits.wait(), 0);
}

TEST_F(LdlmBesidePython, ShareTheSlots) {
  const LdlmServer server;
  const Mount mount({}, source(server.port()));
  ASSERT_EQ(ask(mount, "two", "SLOT size=2"), 0);
  std::unique_ptr<Child> python = python_holds(server.port(), "two", 2);
  EXPECT_EQ(ask(mount, "two", "SLOT size=2 try"), EAGAIN);
  EXPECT_FALSE(python_has(server.port(), "two", 2));
  python.reset();
  EXPECT_TRUE(eventually([&] { return ask(mount, "two", "SLOT size=2 try") == 0; }));
}

TEST_F(LdlmBesidePython, CallALockAsTheMountDoes) {
  const LdlmServer server;
  const Mount mount({}, source(server.port()));
  const std::vector<std::pair<std::string, std::string>> names = {
      {"a b", "a b"},
      {"100%", "100%25"},
      {"gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F"},
      {"\xFF", "%FF"},
      {"\n", "%0A"},
      {"\xC0\xAF", "%C0%AF"},
      {"\xC3", "%C3"},
      {"\xED\xA0\x80", "%ED%A0%80"}};
  for (const auto& [ours, theirs] : names) {
    ASSERT_EQ(ask(mount, ours, "EX"), 0) << theirs << mount.log();
    EXPECT_FALSE(python_has(server.port(), theirs)) << theirs;
  }
}

}  // namespace
}  // namespace lockfs::test
