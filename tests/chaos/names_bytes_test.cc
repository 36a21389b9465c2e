// SPDX-License-Identifier: MIT
// Names of locks and lockspaces, byte for byte: what the mount, the pictures and `.ctl` make of
// them.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "core/lock_name.h"
#include "tests/chaos/chaos.h"
#include "tests/fs/mount_test.h"

namespace lockfs::test {
namespace {

using namespace std::string_literals;
using ::testing::Contains;
using ::testing::HasSubstr;

// Names whose file is the same bytes.
const std::vector<std::string>& plain_names() {
  static const std::vector<std::string> all = {"a",
                                               "with space",
                                               " ",
                                               "new\nline",
                                               "\n",
                                               "tab\tbed",
                                               ".hidden",
                                               "...",
                                               ".ctl.",
                                               ".ctL",
                                               "-rf",
                                               "*",
                                               "a\"b",
                                               "back\\",
                                               "'",
                                               "\x01\x1b\x7f",
                                               "\xc2\x85",
                                               "\xe2\x80\xa8",
                                               "\xef\xbb\xbf",
                                               "ümlaut",
                                               "日本",
                                               "\xf0\x9f\x94\x92",
                                               "\xef\xbf\xbe",
                                               "e\xcc\x81",
                                               "%",
                                               "%%",
                                               "%2f",
                                               "%2",
                                               "100%",
                                               "a%b%2",
                                               "yes",
                                               "null",
                                               "0x10",
                                               "1e5",
                                               "~",
                                               "- a: b",
                                               "# a",
                                               "{}",
                                               std::string(255, 'x'),
                                               std::string(255, '%')};
  return all;
}

class NamesBytes : public MountTest {
 protected:
  std::string directory() const { return mount_.path() + "/default"; }
  Fd take(const std::string& file) const {
    return open("default/" + file, O_RDWR | O_CREAT | O_EXCL);
  }
};

TEST_F(NamesBytes, APlainNameIsTheSameInTheDirectoryAndInItsPicture) {
  for (const std::string& name : plain_names()) {
    const Fd fd = take(name);
    ASSERT_TRUE(fd.valid()) << name << " errno " << errno;
    EXPECT_EQ(open_error("default/" + name, O_RDWR | O_CREAT | O_EXCL), EEXIST) << name;
    EXPECT_THAT(names_in(directory()), Contains(name));
    EXPECT_EQ(value("default/" + name, "lock"), name);
  }
  EXPECT_EQ(names_in(directory()).size(), 1U) << "all are free again";
}

TEST_F(NamesBytes, AllNamesTogetherAreDifferentLocks) {
  std::vector<Fd> all;
  for (const std::string& name : plain_names()) {
    all.push_back(take(name));
    EXPECT_TRUE(all.back().valid()) << name;
  }
  EXPECT_EQ(names_in(directory()).size(), plain_names().size() + 1);
  const auto locks = nlohmann::json::parse(slurp(mount_.path() + "/.lockfs/locks.json"));
  EXPECT_EQ(locks.at("locks").size(), plain_names().size());
}

TEST_F(NamesBytes, EveryByteMayStandInANameButSlashAndNul) {
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/') continue;
    const std::string name = "b" + std::string(1, static_cast<char>(byte));
    const Fd fd = take(name);
    ASSERT_TRUE(fd.valid()) << byte;
    EXPECT_THAT(names_in(directory()), Contains(name)) << byte;
    const YAML::Node picture = YAML::Load(slurp(mount_.lock(name)));
    EXPECT_EQ(picture["mode"].as<std::string>(), "EX") << byte;
    const std::string shown = byte < 0x80 ? name : "b\xef\xbf\xbd";
    EXPECT_EQ(picture["lock"].as<std::string>(), shown) << byte;
  }
}

TEST_F(NamesBytes, APictureHasNoCharacterThatYamlForbids) {
  // PyYAML and others refuse a document with one of these unescaped, or read a line's end.
  for (const std::string bad : {"\x7f", "\xc2\x80", "\xc2\x85", "\xc2\x9b", "\xe2\x80\xa8",
                                "\xe2\x80\xa9", "\xef\xbb\xbf", "\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    const Fd fd = take("a" + bad + "b");
    ASSERT_TRUE(fd.valid());
    const std::string picture = slurp(mount_.lock("a" + bad + "b"));
    EXPECT_EQ(picture.find(bad), std::string::npos) << picture;
    EXPECT_EQ(picture_value(picture, "lock"), "a" + bad + "b");
  }
}

TEST_F(NamesBytes, BytesThatAreNoUtf8AreShownAsReplacementsAndAreStillDifferentLocks) {
  const Fd one = take("x\xff");
  const Fd two = take("x\xfe");
  ASSERT_TRUE(one.valid() && two.valid());
  EXPECT_EQ(value("x\xff", "lock"), "x\xef\xbf\xbd");
  EXPECT_THAT(names_in(directory()), ::testing::IsSupersetOf({"x\xff"s, "x\xfe"s}));
}

TEST_F(NamesBytes, Percent2FStandsForASlashAndPercent25ForPercent) {
  struct Row {
    std::string file;   // As opened.
    std::string lock;   // As the picture names it.
    std::string shown;  // As ls shows it.
  };
  for (const Row& row :
       {Row{"a%2Fb", "a/b", "a%2Fb"}, Row{"%2F", "/", "%2F"}, Row{"%2F%2F", "//", "%2F%2F"},
        Row{"a%25", "a%", "a%"}, Row{"%252F", "%2F", "%252F"}, Row{"%2525", "%25", "%2525"},
        Row{"%2f", "%2f", "%2f"}, Row{"%25%2F", "%/", "%%2F"}}) {
    const Fd fd = take(row.file);
    ASSERT_TRUE(fd.valid()) << row.file;
    EXPECT_EQ(value("default/" + row.file, "lock"), row.lock);
    EXPECT_THAT(names_in(directory()), ::testing::UnorderedElementsAre(".ctl", row.shown));
    EXPECT_EQ(open_error("default/" + row.shown, O_RDWR | O_CREAT | O_EXCL), EEXIST) << row.shown;
    const auto locks = nlohmann::json::parse(slurp(mount_.path() + "/.lockfs/locks.json"));
    EXPECT_EQ(locks.at("locks").at(0).at("lock"), row.lock);
    EXPECT_EQ(control("break " + row.shown).first, 0) << row.shown;
  }
}

TEST_F(NamesBytes, EachLockHasOneFileNameThatLeadsBackToIt) {
  for (const std::string lock :
       {"a/b", "%", "%2F", "%25", "%%2F", "%2525", "/", "a%", "%2", "%2f"}) {
    EXPECT_EQ(lock_name(file_name(lock)), lock);
    EXPECT_EQ(file_name(lock).find('/'), std::string::npos) << lock;
  }
  for (const std::string& name : plain_names()) EXPECT_EQ(file_name(name), name);
}

TEST_F(NamesBytes, TheLimitIs255BytesOfTheLocksName) {
  const std::string longest(255, 'x');
  EXPECT_EQ(open_error("default/" + longest, O_RDWR | O_CREAT | O_EXCL), 0);
  EXPECT_EQ(open_error("default/" + longest + "x", O_RDWR | O_CREAT | O_EXCL), ENAMETOOLONG);
  EXPECT_EQ(open_error("default/" + longest + "x", O_RDONLY), ENAMETOOLONG);
  std::string umlauts;
  for (int i = 0; i < 128; ++i) umlauts += "ü";
  EXPECT_EQ(open_error("default/" + umlauts, O_RDWR | O_CREAT), ENAMETOOLONG) << "bytes count";
  EXPECT_EQ(open_error("default/" + std::string(4000, 'x'), O_RDWR | O_CREAT), ENAMETOOLONG);
  EXPECT_EQ(open_error("default/" + std::string(254, 'x') + "%2F", O_RDWR | O_CREAT), 0)
      << "%2F is one byte";
}

TEST_F(NamesBytes, DotAndTheControlFileAreNoLocks) {
  EXPECT_EQ(open_error("default/.", O_RDWR | O_CREAT), EISDIR);
  EXPECT_EQ(open_error("default/..", O_RDWR | O_CREAT), EISDIR);
  EXPECT_EQ(open_error("default/.ctl", O_RDWR | O_CREAT | O_EXCL), EEXIST);
}

TEST_F(NamesBytes, ControlCommandsReachEveryNameThatCanBeWritten) {
  for (const std::string& name : plain_names()) {
    if (name.find_first_of("\n\t\x01\x1b\x7f") != std::string::npos) continue;
    std::string quoted = "\"";
    for (const char c : name) quoted += c == '"' || c == '\\' ? "\\"s + c : std::string(1, c);
    quoted += "\"";
    EXPECT_EQ(control("pin " + quoted).first, 0) << name;
    EXPECT_THAT(names_in(directory()), Contains(name));
    EXPECT_EQ(control("unpin " + quoted).first, 0) << name;
  }
}

TEST_F(NamesBytes, OfLockspacesAreBytesToo) {
  for (const std::string& name : plain_names()) {
    const std::string path = mount_.path() + "/" + name;
    ASSERT_EQ(mkdir(path.c_str(), 0755), 0) << name;
    EXPECT_THAT(names_in(mount_.path()), Contains(name));
    Fd fd = open(path.substr(mount_.path().size() + 1) + "/a", O_RDWR | O_CREAT | O_EXCL);
    EXPECT_TRUE(fd.valid()) << name;
    const YAML::Node picture = YAML::Load(slurp(path + "/a"));
    EXPECT_EQ(picture["lockspace"].as<std::string>(), name);
    EXPECT_EQ(control("break a", name).first, 0) << name;
    fd.reset();
    EXPECT_EQ(rmdir(path.c_str()), 0) << name;
  }
  const std::string bad = mount_.path() + "/\xff\xfe";
  ASSERT_EQ(mkdir(bad.c_str(), 0755), 0);
  EXPECT_NO_THROW(nlohmann::json::parse(slurp(mount_.path() + "/.lockfs/traits")));
  EXPECT_EQ(rmdir(bad.c_str()), 0);
  EXPECT_EQ(mkdir((mount_.path() + "/" + std::string(256, 'x')).c_str(), 0755), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
}

TEST_F(NamesBytes, NoNameBreaksALineOfTheLog) {
  const Fd fd = take("evil\nlockfs: warning: forged");
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(write_command(fd.get(), "EX ttl=1ms"), 0);
  EXPECT_TRUE(eventually([&] { return mount_.log().find("ran out") != std::string::npos; }));
  EXPECT_EQ(mount_.log().find("\nlockfs: warning: forged"), std::string::npos) << mount_.log();
}

TEST(NamesOfTheMountpoint, MayBeAnyBytesAndTheConfigStillReads) {
  const std::string parent = "/tmp/lockfs-chaos-" + std::to_string(getpid());
  const std::string directory = parent + "/\xff \n";
  ASSERT_EQ(mkdir(parent.c_str(), 0755), 0);
  ASSERT_EQ(mkdir(directory.c_str(), 0755), 0);
  EXPECT_EQ(run_lockfs({"memory:", directory}).first, 0);
  EXPECT_THAT(slurp(directory + "/.lockfs/config"), HasSubstr("mountpoint: "));
  EXPECT_EQ(umount2(directory.c_str(), 0), 0);
  EXPECT_TRUE(eventually([&] { return rmdir(directory.c_str()) == 0; }));
  EXPECT_EQ(rmdir(parent.c_str()), 0);
}

}  // namespace
}  // namespace lockfs::test
