// SPDX-License-Identifier: MIT
// lockctl events: each line in words.
#include "ctl/events.h"

#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "tests/ctl/program.h"

namespace lockfs::test {
namespace {

using ctl::event_in_words;
using ctl::Style;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string words(const std::string& line) { return event_in_words(line, Style(false)); }

// An event of the lock default/backup and the process 4711, with more keys.
std::string event(const std::string& name, const std::string& more = "") {
  return R"({"time":"2020-02-03T04:05:06.500Z","seq":17,"event":")" + name +
         R"(","lockspace":"default","lock":"backup","mode":"EX","pid":4711,"uid":0,"comm":"flock")" +
         (more.empty() ? "" : "," + more) + "}";
}

TEST(LockctlEvents, EachIsALineOfWords) {
  const std::string who = "pid 4711 (flock) of root";
  EXPECT_THAT(words(event("granted", R"("token":123,"waited":0.5)")),
              AllOf(HasSubstr("2020-02-03"),
                    EndsWith("default/backup: granted EX to " + who + " after 0.5 s")));
  EXPECT_THAT(words(event("granted", R"("waited":0)")), EndsWith("granted EX to " + who));
  EXPECT_THAT(words(event("released", R"("held":12)")),
              EndsWith("released EX by " + who + ", held 12 s"));
  EXPECT_THAT(words(event("waiting")), EndsWith(who + " waits for EX"));
  EXPECT_THAT(words(event("timeout", R"("waited":2)")),
              EndsWith(who + " gave up waiting for EX after 2.0 s"));
  EXPECT_THAT(words(event("deadlock")),
              EndsWith("deadlock: " + who + " would wait for itself, for EX"));
  EXPECT_THAT(words(event("lost", R"("why":"ttl")")), EndsWith("lost EX by " + who + ": ttl"));
  EXPECT_THAT(words(event("broken", R"("why":"by uid 0")")),
              EndsWith("broken, " + who + " has lost it: by uid 0"));
  EXPECT_THAT(words(R"({"event":"backend_up","backend":"redis"})"),
              EndsWith("the backend redis is in reach"));
  EXPECT_THAT(words(event("interrupted", R"("waited":2)")),
              EndsWith("interrupted: " + who + " gave up waiting for EX after 2.0 s"));
  EXPECT_THAT(words(R"({"event":"started","version":"1.2.3"})"),
              EndsWith("lockfs 1.2.3 has begun"));
  EXPECT_THAT(words(R"({"event":"granted","lock":"a","thread":12})"), HasSubstr("to thread 12"));
  EXPECT_THAT(words(R"({"event":"backend_down","backend":"redis","why":"reset"})"),
              EndsWith("the backend redis is out of reach: reset"));
  EXPECT_THAT(words(R"({"event":"gap","lost":12})"), EndsWith("12 events were not read in time"));
}

TEST(LockctlEvents, AnyKeyMayBeAbsentAndAnyLineOdd) {
  for (const std::string line : {"{}", R"({"event":"granted"})", R"({"event":null,"pid":"x"})",
                                 R"({"time":5,"uid":-1,"waited":"long"})"}) {
    EXPECT_THAT(words(line), Not(HasSubstr("\n"))) << line;
  }
  EXPECT_THAT(words(R"({"event":"renamed","lock":"a"})"), HasSubstr("a: renamed"));
  EXPECT_EQ(words("no json \x1b"), "no json \\x1b");
  EXPECT_THAT(words(R"({"event":"lost","lock":"\u001b[2J","why":"a\nb"})"),
              AllOf(HasSubstr("\\x1b[2J"), HasSubstr("a\\x0ab"), Not(HasSubstr("\x1b"))));
}

TEST(LockctlEvents, JsonKeepsItsOrderAndHasNoControlCharacter) {
  EXPECT_EQ(ctl::event_as_json("{\"event\":\"granted\",\"a\":\"\xc2\x9b\",\"n\":17}"),
            "{\"event\":\"granted\",\"a\":\"\\u009b\",\"n\":17}");
  EXPECT_EQ(ctl::event_as_json("no json \x1b"), "no json \\x1b");
}

TEST(LockctlEvents, LinesAreHandedOnAsTheyCome) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  std::vector<std::string> lines;
  std::thread writer([&] {
    for (const std::string piece : {"on", "e\ntwo\nth", "ree\n", "four"}) {
      EXPECT_EQ(write(ends[1], piece.data(), piece.size()), ssize_t(piece.size()));
    }
    close(ends[1]);
  });
  EXPECT_EQ(ctl::follow(ends[0], [&](const std::string& line) { lines.push_back(line); }), 0);
  writer.join();
  close(ends[0]);
  EXPECT_THAT(lines, ElementsAre("one", "two", "three", "four"));
}

class LockctlEventsOfAMount : public LockctlTest {};

TEST_F(LockctlEventsOfAMount, AreToldAsTheyHappen) {
  const Program events(line({"events"}), here());
  EXPECT_TRUE(events.eventually_says("has begun"));
  {
    const Fd held = hold("job", "EX");
    EXPECT_TRUE(
        events.eventually_says("default/job: granted EX to pid " + std::to_string(getpid())));
  }
  EXPECT_TRUE(events.eventually_says("default/job: released EX by pid"));
}

TEST_F(LockctlEventsOfAMount, AreJsonForPrograms) {
  const Program events(line({"events", "--json"}), here());
  const Fd held = hold("job", "EX");
  EXPECT_TRUE(events.eventually_says(R"("event":"granted","lockspace":"default","lock":"job")"));
}

TEST_F(LockctlEventsOfAMount, EndWithTheMount) {
  Program events(line({"events"}), here());
  ASSERT_TRUE(events.eventually_says("has begun"));
  ::kill(mount_.daemon(), SIGTERM);
  EXPECT_EQ(events.wait(), 69);
  EXPECT_THAT(events.err(), HasSubstr("has ended"));
}

TEST_F(LockctlEventsOfAMount, AreForRoot) {
  const Ended ended = lockctl({"events"}, 4242);
  EXPECT_EQ(ended.status, 77);
  EXPECT_THAT(ended.err, HasSubstr("root's"));
}

}  // namespace
}  // namespace lockfs::test
