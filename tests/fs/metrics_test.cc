// SPDX-License-Identifier: MIT
// `.lockfs/metrics`: the text that Prometheus reads.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Metrics : public MountTest {
 protected:
  std::string path() const { return mount_.path() + "/.lockfs/metrics"; }
  // A series' value, by its whole name with labels; "" when it is not there.
  std::string metric(const std::string& series) const {
    const std::string text = "\n" + slurp(path());
    const size_t at = text.find("\n" + series + " ");
    if (at == std::string::npos) return {};
    const size_t begin = at + series.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
  }
  std::string of_default(const std::string& name, const std::string& more = {}) const {
    return metric(name + "{lockspace=\"default\"" + more + "}");
  }
  // Whether the Python client of Prometheus takes it all; else what it says.
  std::string parsed() const {
    const std::string program =
        "import sys\n"
        "from prometheus_client.parser import text_string_to_metric_families as parse\n"
        "names = set()\n"
        "for family in parse(open(sys.argv[1]).read()):\n"
        "  assert family.type != 'unknown' and family.documentation, family.name\n"
        "  assert family.name not in names, family.name\n"
        "  names.add(family.name)\n"
        "  assert family.samples, family.name\n"
        "  series = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]\n"
        "  assert len(series) == len(set(series)), family.name\n"
        "assert len(names) > 10, names\n"
        "print('well')\n";
    const std::string command = "/usr/bin/python3 -c \"" + program + "\" " + path() + " 2>&1";
    FILE* python = popen(command.c_str(), "r");
    std::string out;
    for (int c = fgetc(python); c != EOF; c = fgetc(python)) out += static_cast<char>(c);
    pclose(python);
    return out;
  }
};

TEST_F(Metrics, CountWhatHappens) {
  {
    const Fd held = hold("a", "EX");
    const Fd other = open("a");
    EXPECT_EQ(of_default("lockfs_holders"), "1");
    EXPECT_EQ(write_command(other.get(), "EX try"), EAGAIN);
    Child impatient([&] { return write_command(open("a").get(), "EX timeout=1ms"); });
    EXPECT_EQ(impatient.wait(), ETIMEDOUT);
    Child waits([&] { return write_command(open("a").get(), "PR") == 0 ? pause() : 1; });
    ASSERT_TRUE(eventually_waiting(1));
    EXPECT_EQ(of_default("lockfs_waiters"), "1");
    EXPECT_EQ(write_command(held.get(), "UN"), 0);
    ASSERT_TRUE(eventually([&] { return value("a", "mode") == "PR"; }));
    ASSERT_EQ(control("break a").first, 0);
  }
  EXPECT_EQ(of_default("lockfs_grants_total", ",mode=\"EX\""), "1");
  EXPECT_EQ(of_default("lockfs_grants_total", ",mode=\"PR\""), "1");
  EXPECT_EQ(of_default("lockfs_contended_grants_total"), "1");
  EXPECT_EQ(of_default("lockfs_refusals_total", ",reason=\"would_block\""), "1");
  EXPECT_EQ(of_default("lockfs_refusals_total", ",reason=\"timeout\""), "1");
  EXPECT_EQ(of_default("lockfs_losses_total", ",cause=\"broken\""), "1");
  EXPECT_EQ(of_default("lockfs_losses_total", ",cause=\"lost\""), "0");
  EXPECT_EQ(of_default("lockfs_wait_seconds_count"), "1");
  EXPECT_EQ(of_default("lockfs_hold_seconds_count"), "2");
  EXPECT_EQ(of_default("lockfs_hold_seconds_bucket", ",le=\"+Inf\""), "2");
  EXPECT_EQ(of_default("lockfs_waiters"), "0");
  EXPECT_EQ(of_default("lockfs_holders"), "0");
  EXPECT_EQ(of_default("lockfs_deadlocks_total"), "0");
  EXPECT_EQ(of_default("lockfs_backend_up", ",backend=\"memory\""), "1");
}

TEST_F(Metrics, ADeadlockIsCounted) {
  const Fd a = hold("a", "PR");
  const Fd b = hold("a", "PR");
  auto converts = in_thread([&] { return write_command(a.get(), "EX"); });
  ASSERT_TRUE(eventually_waiting(1));
  EXPECT_EQ(write_command(b.get(), "EX"), EDEADLK);
  EXPECT_EQ(of_default("lockfs_deadlocks_total"), "1");
  EXPECT_EQ(write_command(b.get(), "UN"), 0);
  ASSERT_TRUE(ended(converts));
}

TEST_F(Metrics, ArePrometheusText) {
  { const Fd held = hold("a", "EX"); }
  EXPECT_EQ(parsed(), "well\n");
}

TEST_F(Metrics, ArePrometheusTextWhateverTheLockspacesAreCalled) {
  for (const std::string name : {"a\"b", "back\\slash", "new\nline", "\xff\xfe", "ü", "%C3%BC"}) {
    ASSERT_EQ(mkdir((mount_.path() + "/" + name).c_str(), 0777), 0);
  }
  EXPECT_EQ(parsed(), "well\n");
}

TEST_F(Metrics, HaveSoManySeriesAndNoMore) {
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(mkdir((mount_.path() + "/space" + std::to_string(i)).c_str(), 0777), 0);
  }
  const Fd a = hold("space298/a", "EX");
  const Fd b = hold("space299/b", "EX");
  EXPECT_EQ(metric("lockfs_holders{lockspace=\"/others\"}"), "2");
  EXPECT_EQ(metric("lockfs_holders{lockspace=\"space299\"}"), "");
  EXPECT_EQ(metric("lockfs_holders{lockspace=\"space1\"}"), "0");
  EXPECT_EQ(metric("lockfs_lockspaces"), "301");
  const std::string text = slurp(path());
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 10000);
  EXPECT_EQ(parsed(), "well\n");
}

TEST_F(Metrics, CountersOfManyDoNotGoDownWhenOneEnds) {
  for (int i = 0; i < 110; ++i) {
    ASSERT_EQ(mkdir((mount_.path() + "/space" + std::to_string(i)).c_str(), 0777), 0);
  }
  const auto others = [&] {
    return metric("lockfs_grants_total{lockspace=\"/others\",mode=\"EX\"}");
  };
  { const Fd held = hold("space105/a", "EX"); }
  EXPECT_EQ(others(), "1");
  ASSERT_TRUE(eventually([&] { return rmdir((mount_.path() + "/space105").c_str()) == 0; }));
  ASSERT_EQ(rmdir((mount_.path() + "/space3").c_str()), 0);
  EXPECT_EQ(others(), "1");
  EXPECT_EQ(metric("lockfs_holders{lockspace=\"space108\"}"), "") << "it stays among the others";
}

TEST_F(Metrics, TheDashboardAsksForNoneThatIsNotThere) {
  const std::string text = slurp(path());
  const std::string dashboard = slurp(LOCKFS_SOURCE "/doc/grafana.json");
  ASSERT_TRUE(nlohmann::json::accept(dashboard));
  const std::regex name("lockfs_[a-z_]+");
  std::set<std::string> asked;
  for (std::sregex_iterator it(dashboard.begin(), dashboard.end(), name), end; it != end; ++it) {
    asked.insert(it->str());
  }
  EXPECT_GE(asked.size(), 10U);
  for (const std::string& name_of : asked) {
    EXPECT_TRUE(std::regex_search(text, std::regex("\n" + name_of + "[{ ]"))) << name_of;
  }
}

TEST_F(Metrics, NamesOfLocksAreNotInThem) {
  const Fd held = hold("secret", "EX");
  EXPECT_THAT(slurp(path()), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace lockfs::test
