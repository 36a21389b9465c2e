// SPDX-License-Identifier: MIT
// A mount of the original elock, in what it does and `lockfs serve` does not: the timer that it
// sets at the end of a connection frees what the session holds if there is no connection when it is
// up, though there was one meanwhile (lock_serv.erl, check_disconnect).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <list>
#include <map>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/contract/witness.h"
#include "tests/support/elock_server.h"
#include "tests/support/mount.h"
#include "tests/support/proxy.h"

namespace lockfs::test {
namespace {

using Clock = std::chrono::steady_clock;

// Sessions, locks and timers as the original has them; no queues.
class Original {
 public:
  Original() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof place;
    auto* address = reinterpret_cast<sockaddr*>(&place);
    if (bind(listener_, address, size) != 0 || listen(listener_, 64) != 0 ||
        getsockname(listener_, address, &size) != 0) {
      throw std::runtime_error("it cannot listen");
    }
    port_ = ntohs(place.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Original() {
    stop_ = true;
    thread_.join();
    for (const Client& client : clients_) close(client.fd);
    close(listener_);
  }
  Original(const Original&) = delete;
  Original& operator=(const Original&) = delete;
  int port() const { return port_; }

 private:
  struct Client {
    int fd = -1;
    std::string input;
    std::string id;
  };
  struct Timer {
    Clock::time_point when;
    std::string id;
  };

  bool is_connected(const std::string& id) const {
    return std::any_of(clients_.begin(), clients_.end(),
                       [&](const Client& client) { return client.id == id; });
  }

  std::string answer(Client& client, const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::string word;
    words >> verb >> word;
    if (verb == "conn_id" && !word.empty()) {
      if (!client.id.empty() || is_connected(word)) return "403 cannot set conn id";
      client.id = word;
      return "200 conn id set";
    }
    if (client.id.empty()) client.id = std::to_string(++last_id_);
    if (verb == "conn_id") return "200 " + client.id;
    if (verb == "set_timeout") {
      delays_[client.id] = std::chrono::milliseconds(std::stol(word));
      return "200 timeout set";
    }
    if (verb == "lock") {
      const auto [lock, fresh] = locks_.try_emplace(word, client.id);
      return fresh || lock->second == client.id ? "200 Acquired" : "409 Unavailable";
    }
    if (verb == "unlock") return locks_.erase(word) != 0 ? "200 Unlocked" : "403 not_locked";
    return "200 STATS\r\nSTAT clients " + std::to_string(clients_.size()) + "\r\nEND";
  }

  // False when it has ended.
  bool serve(Client& client) {
    std::array<char, 4096> bytes{};
    const ssize_t n = recv(client.fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    client.input.append(bytes.data(), static_cast<size_t>(n));
    for (size_t end = 0; (end = client.input.find('\n')) != std::string::npos;) {
      const std::string told = answer(client, client.input.substr(0, end)) + "\r\n";
      client.input.erase(0, end + 1);
      send(client.fd, told.data(), told.size(), MSG_NOSIGNAL);
    }
    return true;
  }

  void run() {
    while (!stop_) {
      pollfd ready{listener_, POLLIN, 0};
      if (poll(&ready, 1, 1) == 1) {
        clients_.push_back({accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC), "", ""});
      }
      for (auto client = clients_.begin(); client != clients_.end();) {
        const auto now = client++;
        if (serve(*now)) continue;
        close(now->fd);
        if (!now->id.empty()) timers_.push_back({Clock::now() + delays_[now->id], now->id});
        clients_.erase(now);
      }
      std::erase_if(timers_, [&](const Timer& timer) {
        if (Clock::now() < timer.when) return false;
        if (!is_connected(timer.id)) {
          std::erase_if(locks_, [&](const auto& lock) { return lock.second == timer.id; });
        }
        return true;
      });
    }
  }

  int listener_;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  int last_id_ = 0;
  std::list<Client> clients_;
  std::map<std::string, std::string> locks_;  // To the id of who holds.
  std::map<std::string, std::chrono::milliseconds> delays_;
  std::list<Timer> timers_;
  std::thread thread_;
};

// A mount whose connection ends twice: the second time shortly before the timer of the first is up.
class TwoDrops {
 public:
  explicit TwoDrops(int port)
      : network_(port),
        mount_({}, "elock://127.0.0.1:" + std::to_string(network_.port()) + "?timeout=6s") {
    fd_ = open(mount_.lock("k").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    EXPECT_GE(fd_, 0) << errno;
    const auto first = Clock::now();
    network_.cut();
    EXPECT_TRUE(eventually([&] { return state() == "up" && network_.accepted() > 1; }));
    EXPECT_FALSE(is_lost()) << "once is not a loss";
    std::this_thread::sleep_until(first + std::chrono::milliseconds(5500));
    EXPECT_FALSE(is_lost()) << mount_.log();
    network_.cut(true);
  }
  ~TwoDrops() { close(fd_); }
  TwoDrops(const TwoDrops&) = delete;
  TwoDrops& operator=(const TwoDrops&) = delete;
  bool is_lost() const { return write_command(fd_, "renew") == ESTALE; }
  void come_back() { network_.cut(); }
  std::string state() const {
    return picture_value(slurp(mount_.path() + "/.lockfs/traits"), "default.status.state");
  }
  std::string log() const { return mount_.log(); }

 private:
  Proxy network_;
  Mount mount_;
  int fd_ = -1;
};

TEST(ElockOriginal, WhatAFormerDropMayTakeIsLostBeforeSomebodyElseHasIt) {
  const Original server;
  const TwoDrops mount(server.port());
  ElockClient other(server.port());
  // No sooner is it had than the holder must know.
  ASSERT_TRUE(eventually([&] { return other.ask("lock k") == "200 Acquired"; })) << mount.log();
  EXPECT_TRUE(mount.is_lost()) << mount.log();
  EXPECT_NE(mount.log().find("ended twice within its timeout"), std::string::npos) << mount.log();
}

TEST(ElockOriginal, OfAServerThatResumesNothingIsFeared) {
  const ElockServer server;
  TwoDrops mount(server.port());
  ElockClient other(server.port());
  const auto begin = Clock::now();
  while (Clock::now() - begin < std::chrono::seconds(1)) {
    ASSERT_EQ(other.ask("lock k"), "409 Unavailable");
    ASSERT_FALSE(mount.is_lost()) << mount.log();
  }
  mount.come_back();
  EXPECT_TRUE(eventually([&] { return mount.state() == "up"; })) << mount.log();
  EXPECT_FALSE(mount.is_lost()) << mount.log();
  EXPECT_EQ(other.ask("lock k"), "409 Unavailable");
}

}  // namespace
}  // namespace lockfs::test
