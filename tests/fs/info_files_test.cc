// SPDX-License-Identifier: MIT
// `.lockfs/`: what the mount says of itself.
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "tests/fs/actor.h"

namespace lockfs::test {
namespace {

using nlohmann::json;

class InfoFiles : public MountTest {
 protected:
  std::string info(const std::string& file) const {
    return slurp(mount_.path() + "/.lockfs/" + file);
  }
  json locks() const { return json::parse(info("locks.json")).at("locks"); }
};

TEST_F(InfoFiles, AllAreListed) {
  EXPECT_THAT(names_in(mount_.path() + "/.lockfs"),
              ::testing::IsSupersetOf({"version", "config", "traits", "locks.json", "waits"}));
}

TEST_F(InfoFiles, VersionIsAVersion) {
  EXPECT_TRUE(std::regex_match(info("version"), std::regex("[0-9]+\\.[0-9]+\\.[0-9]+\\n")));
}

TEST_F(InfoFiles, ConfigShowsTheValuesInForce) {
  const YAML::Node config = YAML::Load(info("config"));
  EXPECT_EQ(config["source"].as<std::string>(), "memory:");
  EXPECT_EQ(config["capacity"].as<int>(), 2048);
  EXPECT_TRUE(config["max_waiters_per_user"].IsDefined());
}

TEST_F(InfoFiles, ConfigIsValidWhateverTheLockspacesNames) {
  const std::vector<std::string> names = {"x: 1\nsource: evil\ny", "a\"b", "- c", "{d", "#e", "12"};
  for (const std::string& name : names) {
    ASSERT_EQ(mkdir((mount_.path() + "/" + name).c_str(), 0777), 0) << name;
  }
  const std::string text = info("config");
  const YAML::Node config = YAML::Load(text);
  EXPECT_EQ(config["source"].as<std::string>(), "memory:") << text;
  EXPECT_EQ(config["lockspace"].size(), names.size() + 1) << text;
  for (const std::string& name : names) {
    EXPECT_TRUE(config["lockspace"][name].IsMap()) << text;
  }
}

TEST(InfoFilesOfAMount, ConfigShowsWhatWasSet) {
  const Mount mount({"-o", "capacity=5"});
  const YAML::Node config = YAML::Load(slurp(mount.path() + "/.lockfs/config"));
  EXPECT_EQ(config["capacity"].as<int>(), 5);
}

TEST_F(InfoFiles, TraitsAreThoseOfEachLockspacesBackend) {
  ASSERT_EQ(mkdir((mount_.path() + "/other").c_str(), 0777), 0);
  const json traits = json::parse(info("traits"));
  for (const std::string space : {"default", "other"}) {
    EXPECT_EQ(traits.at(space).at("backend"), "memory");
    EXPECT_TRUE(traits.at(space).at("shared_modes").is_boolean());
  }
}

TEST_F(InfoFiles, LocksJsonListsWhatIsHeldAndPinned) {
  EXPECT_TRUE(locks().empty());
  const Fd ex = hold("a", "EX note=\"\\\"quoted\\\" words\"");
  const Fd null = hold("nobody", "NL");
  ASSERT_EQ(control("pin b").first, 0);
  const json all = locks();
  ASSERT_EQ(all.size(), 2U);
  const json& a = all.at(0).at("lock") == "a" ? all.at(0) : all.at(1);
  const json& b = all.at(0).at("lock") == "a" ? all.at(1) : all.at(0);
  EXPECT_EQ(a.at("mode"), "EX");
  EXPECT_EQ(a.at("lockspace"), "default");
  EXPECT_EQ(a.at("holders").at(0).at("pid"), getpid());
  EXPECT_EQ(a.at("holders").at(0).at("note"), "\"quoted\" words");
  EXPECT_EQ(b.at("lock"), "b");
  EXPECT_EQ(b.at("mode"), "free");
  EXPECT_EQ(b.at("pinned"), true);
}

TEST_F(InfoFiles, LocksJsonIsValidWhateverTheNames) {
  std::vector<Fd> all;
  for (const std::string name : {"a\"b", "back\\slash", "new\nline", "\x01\x7f", "\xff\xfe", "ü"}) {
    all.push_back(hold("default/" + name, "EX"));
  }
  EXPECT_EQ(locks().size(), all.size());
}

TEST_F(InfoFiles, LocksJsonOfManyLocksIsWhole) {
  std::vector<Fd> all;
  for (int i = 0; i < 2000; ++i) all.push_back(hold(std::to_string(i), "PR"));
  EXPECT_EQ(locks().size(), 2000U);
  EXPECT_EQ(names_in(mount_.path() + "/default").size(), 2001U);
}

TEST_F(InfoFiles, LocksJsonHasALockALine) {
  const Fd a = hold("a", "EX");
  const Fd b = hold("b", "EX");
  const std::string text = info("locks.json");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with(',')) line.pop_back();
    if (line.find("\"holders\"") != std::string::npos) {
      EXPECT_EQ(json::parse(line).at("mode"), "EX");
    }
  }
}

// The moment of which a lock's entry tells: milliseconds since 1970.
int64_t moment_of(const json& lock) {
  const json& holder = lock.at("holders").at(0);
  std::tm parts{};
  const std::string since = holder.at("since");
  const char* rest = strptime(since.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  const double seconds = std::stod(rest) + holder.at("held").get<double>();
  return timegm(&parts) * 1000 + std::llround(seconds * 1000);
}

TEST_F(InfoFiles, LocksJsonOfManyLocksKeepsNobodyFromLocking) {
  using std::chrono::system_clock;
  const auto now = [] {
    const auto since_epoch = system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
  };
  std::vector<Fd> all;
  for (int i = 0; i < 2000; ++i) all.push_back(hold(std::to_string(i), "PR"));
  // Whoever takes a lock and gives it back while the text is made, had a turn in between.
  const auto one_in_between = [&] {
    auto text = in_thread([&] { return info("locks.json"); });
    std::vector<std::pair<int64_t, int64_t>> cycles;
    while (!ended(text, 0)) {
      const int64_t start = now();
      open("probe", O_RDWR | O_CREAT | O_EXCL).reset();
      cycles.emplace_back(start, now());
    }
    int64_t first = INT64_MAX;
    int64_t last = 0;
    const json shown = json::parse(text.get());
    for (const json& lock : shown.at("locks")) {
      first = std::min(first, moment_of(lock));
      last = std::max(last, moment_of(lock));
    }
    // They are told to the millisecond.
    return std::any_of(cycles.begin(), cycles.end(), [&](const auto& cycle) {
      return cycle.first > first + 2 && cycle.second < last - 2;
    });
  };
  EXPECT_TRUE(eventually(one_in_between));
}

TEST_F(InfoFiles, WaitsShowsWhoWaitsForWhom) {
  EXPECT_EQ(YAML::Load(info("waits"))["waits"].size(), 0U);
  Actor waiter;
  ASSERT_EQ(waiter.open(mount_.lock("a")), 0);
  const Fd holder = hold("a", "PW");
  waiter.begin_write(0, "EX");
  ASSERT_TRUE(eventually_waiting(1));
  const YAML::Node waits = YAML::Load(info("waits"))["waits"];
  ASSERT_EQ(waits.size(), 1U);
  EXPECT_EQ(waits[0]["lockspace"].as<std::string>(), "default");
  EXPECT_EQ(waits[0]["lock"].as<std::string>(), "a");
  EXPECT_EQ(waits[0]["pid"].as<int>(), waiter.pid());
  EXPECT_EQ(waits[0]["mode"].as<std::string>(), "EX");
  EXPECT_FALSE(waits[0]["cycle"].as<bool>());
  ASSERT_EQ(waits[0]["waits_for"].size(), 1U);
  EXPECT_EQ(waits[0]["waits_for"][0]["pid"].as<int>(), getpid());
  EXPECT_EQ(waits[0]["waits_for"][0]["holds"].as<std::string>(), "PW");
}

TEST_F(InfoFiles, WhatOneMayNotReadIsNotShown) {
  ASSERT_EQ(mkdir((mount_.path() + "/secret").c_str(), 0700), 0);
  const Fd hidden = hold("secret/a", "EX");
  const Fd open_to_all = hold("a", "EX");
  const std::string path = mount_.path() + "/.lockfs/locks.json";
  Child child([&] {
    if (setgid(1000) != 0 || setuid(1000) != 0) return 3;
    const std::string text = slurp(path);
    if (text.find("secret") != std::string::npos) return 1;
    return text.find("\"default\"") != std::string::npos ? 0 : 2;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(locks().size(), 2U);
}

TEST_F(InfoFiles, WhatASupplementaryGroupMayReadIsShown) {
  const std::string path = mount_.path() + "/team";
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  ASSERT_EQ(chown(path.c_str(), 0, 2000), 0);
  const Fd held = hold("team/a", "EX");
  const auto sees = [&](mode_t mode, gid_t group) {
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    Child child([&] {
      if (setgroups(1, &group) != 0 || setgid(1000) != 0 || setuid(1000) != 0) return 2;
      return info("locks.json").find("\"team\"") != std::string::npos ? 1 : 0;
    });
    return child.wait();
  };
  EXPECT_EQ(sees(0770, 2000), 1);
  EXPECT_EQ(sees(0770, 2001), 0);
  EXPECT_EQ(sees(0707, 2000), 0) << "the group's bits are those that count, as for the kernel";
  EXPECT_EQ(sees(0707, 2001), 1);
}

TEST_F(InfoFiles, TheyCannotBeChangedByAnybody) {
  for (const std::string& file : names_in(mount_.path() + "/.lockfs")) {
    const std::string path = mount_.path() + "/.lockfs/" + file;
    const Fd fd(::open(path.c_str(), O_RDWR));
    if (fd.valid()) {
      EXPECT_EQ(write_command(fd.get(), "EX"), EPERM) << file;
    }
    EXPECT_EQ(unlink(path.c_str()), -1) << file;
    EXPECT_EQ(errno, EPERM) << file;
  }
}

}  // namespace
}  // namespace lockfs::test
