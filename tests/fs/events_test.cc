// SPDX-License-Identifier: MIT
// `.lockfs/events`: what happens, a line each, as it happens.
#include <poll.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Events : public MountTest {
 protected:
  std::string path() const { return mount_.path() + "/.lockfs/events"; }
  Fd stream(int flags = O_RDONLY | O_NONBLOCK) const {
    return Fd(::open(path().c_str(), flags | O_CLOEXEC));
  }
  // What is there to be read now.
  static std::vector<json> read_all(const Fd& fd, size_t size = 65536) {
    std::string text;
    std::string part(size, '\0');
    ssize_t n = 0;
    while ((n = ::read(fd.get(), part.data(), part.size())) > 0) {
      text.append(part, 0, static_cast<size_t>(n));
    }
    EXPECT_EQ(errno, EAGAIN);
    std::istringstream lines(text);
    std::vector<json> out;
    for (std::string line; std::getline(lines, line);) out.push_back(json::parse(line));
    return out;
  }
  static std::vector<std::string> words(const std::vector<json>& events) {
    std::vector<std::string> out;
    for (const json& event : events) {
      out.push_back(event.at("event").get<std::string>() + " " + event.value("lock", ""));
    }
    return out;
  }
};

TEST_F(Events, ALineTellsWhoAndWhatAndHowLong) {
  const Fd events = stream();
  EXPECT_THAT(words(read_all(events)), ElementsAre("started ")) << "the mount itself";
  {
    const Fd held = hold("job", "EX");
    EXPECT_EQ(read_all(events).size(), 1U);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // What is measured.
  }
  std::vector<json> all;
  ASSERT_TRUE(eventually([&] {
    for (json& event : read_all(events)) all.push_back(std::move(event));
    return !all.empty();
  }));
  const json& released = all.front();
  EXPECT_EQ(released.at("event"), "released");
  EXPECT_EQ(released.at("lockspace"), "default");
  EXPECT_EQ(released.at("lock"), "job");
  EXPECT_EQ(released.at("mode"), "EX");
  EXPECT_EQ(released.at("pid"), getpid());
  EXPECT_EQ(released.at("uid"), getuid());
  EXPECT_GE(released.at("held"), 0.02);
  EXPECT_GT(released.at("token"), 0U);
  EXPECT_EQ(released.at("seq"), 2U);
}

TEST_F(Events, EachKindHasItsWord) {
  Fd a = hold("a", "PR");
  Fd b = hold("a", "PR");
  auto converts = in_thread([&] { return write_command(a.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(write_command(b.get(), "EX"), EDEADLK);
  EXPECT_EQ(write_command(b.get(), "UN"), 0);
  ASSERT_TRUE(ended(converts));
  Child waits([&] { return write_command(open("a").get(), "EX timeout=1ms"); });
  EXPECT_EQ(waits.wait(), ETIMEDOUT);
  ASSERT_EQ(control("break a because").first, 0);
  const auto all = read_all(stream());
  EXPECT_THAT(words(all),
              ElementsAre("started ", "granted a", "granted a", "waiting a", "deadlock a",
                          "released a", "granted a", "waiting a", "timeout a", "broken a"));
  EXPECT_THAT(all.back().at("why"), HasSubstr("because"));
}

TEST_F(Events, AReadAtTheEndWaitsForTheNext) {
  const Fd events = stream(O_RDONLY);
  std::string text(65536, '\0');
  ASSERT_GT(::read(events.get(), text.data(), text.size()), 0);
  auto reading = in_thread([&] { return ::read(events.get(), text.data(), text.size()); });
  EXPECT_FALSE(ended(reading, 0.05));
  const Fd held = hold("a", "EX");
  ASSERT_TRUE(ended(reading));
  EXPECT_THAT(text.substr(0, static_cast<size_t>(reading.get())), HasSubstr("granted"));
}

TEST_F(Events, AReadThatWaitsIsEndedByItsProcess) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    Child child([&] {
      const Fd events = stream(O_RDONLY);
      std::string text(65536, '\0');
      while (::read(events.get(), text.data(), text.size()) > 0) {
      }
      return 1;
    });
    ASSERT_TRUE(eventually([&] { return sleeps_in(child.pid(), SYS_read); }));
    child.signal(signal);
    EXPECT_EQ(child.wait(), 128 + signal);
  }
}

TEST_F(Events, AHandledSignalEndsARead) {
  Child child([&] {
    struct sigaction act {};
    act.sa_handler = [](int) {};
    sigaction(SIGUSR1, &act, nullptr);
    const Fd events = stream();
    read_all(events);
    fcntl(events.get(), F_SETFL, 0);  // From here on it waits.
    const off_t end = lseek(events.get(), 0, SEEK_CUR);
    std::string text(65536, '\0');
    return ::pread(events.get(), text.data(), text.size(), end) < 0 ? errno : 0;
  });
  ASSERT_TRUE(eventually([&] { return sleeps_in(child.pid(), SYS_pread64); }));
  child.signal(SIGUSR1);
  EXPECT_EQ(child.wait(), EINTR);
}

TEST_F(Events, TheEndOfTheDaemonEndsAReadThatWaits) {
  Child child([&] {
    const Fd events = stream(O_RDONLY);
    std::string text(65536, '\0');
    while (::read(events.get(), text.data(), text.size()) > 0) {
    }
    return errno == ENOTCONN || errno == ECONNABORTED ? 0 : errno;
  });
  ASSERT_TRUE(eventually([&] { return sleeps_in(child.pid(), SYS_read); }));
  ::kill(mount_.daemon(), SIGTERM);
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(Events, PollTellsThatThereIsMore) {
  const Fd events = stream();
  read_all(events);
  pollfd polled = {events.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&polled, 1, 0), 0);
  auto polling = in_thread([&] { return ::poll(&polled, 1, 10000); });
  EXPECT_FALSE(ended(polling, 0.05));
  const Fd held = hold("a", "EX");
  ASSERT_TRUE(ended(polling));
  EXPECT_EQ(polling.get(), 1);
  EXPECT_EQ(polled.revents, POLLIN);
  EXPECT_THAT(words(read_all(events)), ElementsAre("granted a"));
}

TEST_F(Events, SmallReadsMissNothing) {
  const Fd events = stream();
  for (int i = 0; i < 5; ++i) const Fd held = hold("a name with more letters", "EX");
  const auto whole = read_all(stream());
  EXPECT_EQ(whole.size(), 11U);
  EXPECT_EQ(read_all(events, 7), whole);
}

TEST_F(Events, TailShowsTheLastAndFollows) {
  { const Fd held = hold("before", "EX"); }
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  Child child([&] {
    dup2(ends[1], 1);
    execlp("tail", "tail", "-n", "2", "-f", path().c_str(), nullptr);
    return 1;
  });
  ::close(ends[1]);
  FILE* tail = fdopen(ends[0], "r");
  std::array<char, 4096> line{};
  const auto next = [&] {
    return json::parse(fgets(line.data(), line.size(), tail)).at("event").get<std::string>();
  };
  EXPECT_EQ(next(), "granted");
  EXPECT_EQ(next(), "released");
  const Fd held = hold("after", "EX");
  EXPECT_EQ(next(), "granted");
  EXPECT_THAT(line.data(), HasSubstr("after"));
  fclose(tail);
}

TEST_F(Events, ASlowReaderIsToldHowManyItHasMissed) {
  const Fd slow = stream();
  std::string part(200, '\0');
  ASSERT_EQ(::read(slow.get(), part.data(), part.size()) > 0, true);
  const Fd watcher = stream();  // Keeps up, so that the stream forgets lines, not the journal.
  const Fd fd = open("busy");
  uint64_t last = read_all(watcher).back().at("seq");
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(write_command(fd.get(), "EX"), 0);
    ASSERT_EQ(write_command(fd.get(), "UN"), 0);
    if (i % 500 != 0) continue;
    for (const json& event : read_all(watcher)) {
      EXPECT_EQ(event.at("seq"), last + 1);
      last = event.at("seq");
    }
  }
  const auto late = read_all(slow);
  ASSERT_GT(late.size(), 2U);
  ASSERT_EQ(late.at(0).at("event"), "gap");
  const uint64_t lost = late.at(0).at("lost");
  EXPECT_EQ(late.at(1).at("seq"), 1 + lost) << "it had had the first, number 0";
  EXPECT_EQ(late.back().at("seq"), 10000U);
}

TEST_F(Events, WhatNobodyReadIsCountedToo) {
  const Fd slow = stream();
  EXPECT_EQ(read_all(slow).size(), 1U);
  const Fd fd = open("busy");
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(write_command(fd.get(), "EX"), 0);
    ASSERT_EQ(write_command(fd.get(), "UN"), 0);
  }
  const auto late = read_all(slow);
  ASSERT_GT(late.size(), 2U);
  EXPECT_EQ(late.at(0).at("event"), "gap");
  EXPECT_EQ(late.at(0).at("lost").get<uint64_t>() + late.size() - 1, 10000U);
  EXPECT_EQ(late.back().at("seq"), 10000U);
}

TEST_F(Events, AreForRootOnly) {
  Actor user;
  ASSERT_EQ(user.become(65534), 0);
  EXPECT_EQ(user.open(path(), O_RDONLY), EACCES);
}

TEST_F(Events, NamesThatAreNoTextDoNoHarm) {
  { const Fd held = hold("\xff\n\"quoted\"", "EX note=\"x\""); }
  EXPECT_EQ(read_all(stream()).size(), 3U);
}

}  // namespace
}  // namespace lockfs::test
