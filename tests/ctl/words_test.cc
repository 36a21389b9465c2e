// SPDX-License-Identifier: MIT
// Words and tables, as a terminal gets them.
#include "ctl/words.h"

#include <gtest/gtest.h>

#include <clocale>

#include "ctl/lock_path.h"
#include "ctl/picture.h"
#include "ctl/table.h"

namespace lockfs::ctl {
namespace {

TEST(LockctlWords, NothingThatATerminalActsUponIsPrintable) {
  EXPECT_EQ(printable("plain ü €"), "plain ü €");
  EXPECT_EQ(printable("\x1b[31m\a\n\x7f"), "\\x1b[31m\\x07\\x0a\\x7f");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3") << "no UTF-8";
  EXPECT_EQ(printable("\xc2\x9b"), "\\u009b") << "CSI of eight bits";
  EXPECT_EQ(printable("a\u202eb"), "a\\u202eb") << "turns the direction";
  EXPECT_EQ(printable("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80")
      << "overlong, surrogate";
}

TEST(LockctlWords, ColumnsAreThoseOfTheTerminal) {
  setlocale(LC_CTYPE, "C.UTF-8");
  EXPECT_EQ(columns_of("über"), 4U);
  EXPECT_EQ(columns_of("日本"), 4U);
  EXPECT_EQ(cut("日本", 3), "日");
  EXPECT_EQ(cut("abc", 5), "abc");
}

TEST(LockctlWords, DurationsHaveTwoUnitsAtMost) {
  EXPECT_EQ(duration_in_words(0.04), "0.0 s");
  EXPECT_EQ(duration_in_words(1.25), "1.2 s");
  EXPECT_EQ(duration_in_words(59), "59 s");
  EXPECT_EQ(duration_in_words(185), "3 min 5 s");
  EXPECT_EQ(duration_in_words(7380), "2 h 3 min");
  EXPECT_EQ(duration_in_words(352800), "4 d 2 h");
}

TEST(LockctlWords, TimesOfTodayHaveNoDate) {
  const time_t now = time(nullptr);
  std::string text(64, '\0');
  text.resize(strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S.000Z", gmtime(&now)));
  EXPECT_EQ(time_in_words(text).size(), 8U);
  EXPECT_EQ(time_in_words("2020-02-03T04:05:06.500Z").size(), 19U);
  EXPECT_EQ(time_in_words("soon"), "soon");
}

TEST(LockctlWords, ATableIsAsWideAsItsEntries) {
  Table table({{"NAME"}, {"N", true}});
  table.add({"a", "1"});
  table.add({"longer", ""});
  EXPECT_EQ(table.text(Style(false)), "NAME    N\na       1\nlonger  -\n");
  EXPECT_EQ(table.text(Style(false), false), "a       1\nlonger  -\n");
}

TEST(LockctlWords, FileNamesEncodeWhatTheyCannotHave) {
  EXPECT_EQ(file_name("a/b"), "a%2Fb");
  EXPECT_EQ(file_name("a%2Fb 50%"), "a%252Fb 50%");
  for (const std::string lock : {"a/b", "a%2Fb 50%", "%25", "%/%2", "plain"}) {
    EXPECT_EQ(lock_name(file_name(lock)), lock);
  }
}

TEST(LockctlWords, NamesThatAreNotUtf8AreComparedAsTheMountTellsThem) {
  EXPECT_EQ(as_told("default/ü%2F\x1b\""), "default/ü%2F\x1b\"");
  EXPECT_EQ(as_told("a\xff/\xc3"), "a\ufffd/\ufffd");
}

TEST(LockctlWords, YamlOfTheMountBecomesJson) {
  const auto json = yaml_to_json(
      "lock: \"17\"\nmode: EX\ncount: 17\nratio: 0.5\nyes: true\nnone: null\nodd: "
      "\"a\\u001b\\\"\"\n"
      "empty: []\nlist:\n  - pid: 1\n    comm: \"true\"\n");
  EXPECT_EQ(json.at("lock"), "17");
  EXPECT_EQ(json.at("mode"), "EX");
  EXPECT_EQ(json.at("count"), 17);
  EXPECT_EQ(json.at("ratio"), 0.5);
  EXPECT_EQ(json.at("yes"), true);
  EXPECT_TRUE(json.at("none").is_null());
  EXPECT_EQ(json.at("odd"), "a\x1b\"");
  EXPECT_TRUE(json.at("empty").is_array());
  EXPECT_EQ(json.at("list").at(0).at("comm"), "true");
}

}  // namespace
}  // namespace lockfs::ctl
