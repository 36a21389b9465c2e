// SPDX-License-Identifier: MIT
#include "backends/elock/elock_server.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <random>
#include <utility>

#include "core/words.h"

namespace lockfs::elock {
namespace {

constexpr size_t kMostUnsent = 1U << 20U;
// Of one client in one turn of the loop: bytes that are received, lines that are answered. No fewer
// lines than there may be in the bytes, so that nothing piles up.
constexpr size_t kTurn = 4096;
constexpr uint64_t kLongestWait = 0xffffffff;  // Milliseconds; the original's.

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kBlank = " \r\n";
  const size_t first = line.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(kBlank) - first + 1);
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end != 0) words.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

std::string random_id() {
  std::random_device random;
  return std::to_string((uint64_t{random()} << 32U | random()) >> 1U);
}

}  // namespace

/// One connection.
struct Server::Client final : net::Stream::Events {
  Client(Server& of, EventLoop& loop) : server(of), stream(loop, *this) {}
  void opened() override {}
  void received(std::string_view bytes) override {
    input += bytes;
    server.read(*this);
  }
  void closed(const std::string& /*why*/) override { server.gone(*this); }
  void say(std::string_view text) {
    output.append(text).append("\r\n");
    if (stream.unsent() + output.size() > kMostUnsent) leaving = true;
  }
  void flush() { stream.send(std::exchange(output, {})); }

  Server& server;
  net::Stream stream;
  std::string input;
  std::string output;     ///< What was said in this turn.
  bool has_more = false;  ///< Lines, which are read in another turn.
  Session* session = nullptr;
  OwnerId waits_for = OwnerId::kNone;  ///< Nothing else is read meanwhile.
  std::string wanted;                  ///< Its key.
  bool leaving = false;
  TimerId idle = TimerId::kNone;
  std::list<Client>::iterator self;
};

Server::Server(EventLoop& loop, const Limits& limits)
    : loop_(loop),
      limits_(limits),
      table_(loop.timers, processes_, *this),
      space_(table_.add_lockspace("elock", backend_)),
      outlet_(std::make_shared<Outlet>(loop)) {}

Server::~Server() {
  outlet_->close();
  for (Client& client : clients_) loop_.timers.cancel(client.idle);
  for (const auto& [id, session] : sessions_) loop_.timers.cancel(session.ending);
}

tl::expected<std::unique_ptr<Server>, std::string> Server::open(EventLoop& loop,
                                                                const net::Endpoint& at,
                                                                const Limits& limits) {
  std::unique_ptr<Server> server(new Server(loop, limits));
  auto listener =
      net::Listener::open(loop, at, [raw = server.get()](int fd) { raw->accepted(fd); });
  if (!listener) return tl::make_unexpected(listener.error());
  server->listener_ = std::move(*listener);
  return server;
}

void Server::accepted(int fd) {
  if (clients_.size() >= limits_.clients) {
    constexpr std::string_view kFull = "400 Too many clients\r\n";
    [[maybe_unused]] const ssize_t told = write(fd, kFull.data(), kFull.size());
    close(fd);
    return;
  }
  Client& client = clients_.emplace_back(*this, loop_);
  client.self = std::prev(clients_.end());
  client.stream.adopt(fd, kTurn);
  touch(client);
}

// Who holds nothing and waits for nothing may not stay for ever.
void Server::touch(Client& client) {
  loop_.timers.cancel(client.idle);
  client.idle = loop_.timers.schedule(loop_.timers.now() + limits_.idle, [this, &client] {
    client.idle = TimerId::kNone;
    const bool busy = client.waits_for != OwnerId::kNone ||
                      (client.session != nullptr && !client.session->held.empty());
    busy ? touch(client) : gone(client);
  });
}

// The lines that are whole, until one has to wait, or others have their turn.
void Server::read(Client& client) {
  touch(client);
  size_t taken = 0;
  for (size_t lines = 0; client.waits_for == OwnerId::kNone && !client.leaving; ++lines) {
    const std::string_view rest = std::string_view(client.input).substr(taken);
    const size_t end = rest.find('\n');
    if (std::min(end, rest.size()) > limits_.line) {
      client.say("400 Line too long");
      client.leaving = true;
      break;
    }
    if (end == std::string_view::npos) break;
    if (lines == kTurn) {
      read_later(client);
      break;
    }
    take(client, trimmed(rest.substr(0, end)));
    taken += end + 1;
  }
  client.input.erase(0, taken);
  // What waits behind a wait may not fill the memory.
  if (client.input.size() > limits_.line * 64) client.leaving = true;
  client.flush();
  if (client.leaving) gone(client);
}

void Server::read_later(Client& client) {
  if (std::exchange(client.has_more, true)) return;
  outlet_->post([this, &client, at = client.self] {
    for (auto it = clients_.begin(); it != clients_.end(); ++it) {
      if (it != at) continue;
      client.has_more = false;
      return read(client);
    }
  });
}

void Server::take(Client& client, std::string_view line) {
  const Words words = words_of(line);
  const std::string_view verb = words.empty() ? "" : words.front();
  const size_t count = words.size();
  if (verb == "lock" && (count == 2 || count == 3)) return lock(client, words);
  if (verb == "unlock" && count == 2) return unlock(client, std::string(words[1]));
  if (verb == "unlock_all" && count == 1) return unlock_all(client);
  if (verb == "conn_id" && count <= 2 && count > 0) return conn_id(client, words);
  if (verb == "set_timeout" && count == 2) return set_timeout(client, words[1]);
  if (verb == "stats" && count == 1) return client.say(stats());
  if (verb == "echo") {
    std::string out;
    for (size_t i = 1; i < count; ++i) {
      out += (i > 1 ? ",\"" : "\"") + std::string(words[i]) + "\"";
    }
    return client.say("200 [" + out + "]");
  }
  if (verb == "quit" && count == 1) {
    client.say("200 Hey, it was nice seeing you.");
    client.leaving = true;
    return;
  }
  client.say("400 Unknown command: \"" + std::string(verb) + "\"");
}

Server::Session& Server::session_of(Client& client) {
  if (client.session != nullptr) return *client.session;
  std::string id = random_id();
  while (sessions_.contains(id)) id = random_id();
  Session& session = sessions_[id];
  session.id = id;
  session.client = &client;
  client.session = &session;
  return session;
}

void Server::lock(Client& client, const Words& words) {
  const std::string key(words[1]);
  Request request;
  request.want.mode = Mode::kEX;
  request.now = words.size() == 2;
  if (!request.now) {
    const auto seconds = parse_number(words[2], 0, kLongestWait / 1000);
    if (!seconds) return client.say("400 Not a number of seconds: " + as_said(words[2]));
    request.now = *seconds == 0;
    if (!request.now) request.timeout = std::chrono::seconds(*seconds);
  }
  Session& session = session_of(client);
  if (session.held.contains(key)) return client.say("200 Acquired");
  if (session.held.size() >= limits_.locks) return client.say(kTooManyLocks);
  const OwnerId owner = table_.open(space_, key, {});
  client.wanted = key;
  client.waits_for = owner;
  waiting_[owner] = &client;
  const auto result = table_.request(owner, request, {});
  if (!result) return;  // answered() tells, or has told.
  waiting_.erase(owner);
  client.waits_for = OwnerId::kNone;
  if (*result == LockErrc::kOk) {
    session.held[key] = owner;
    return client.say("200 Acquired");
  }
  table_.close(owner);
  client.say("409 Unavailable");
}

void Server::answered(OwnerId owner, LockErrc result) {
  const auto found = waiting_.find(owner);
  if (found == waiting_.end()) return;
  Client& client = *found->second;
  waiting_.erase(found);
  client.waits_for = OwnerId::kNone;
  if (result == LockErrc::kOk) {
    client.session->held[client.wanted] = owner;
    client.say("200 Acquired");
  } else {
    client.say("409 Unavailable");
  }
  client.flush();
  // Not from within the table.
  if (result != LockErrc::kOk) outlet_->post([this, owner] { table_.close(owner); });
  read_later(client);
}

void Server::unlock(Client& client, const std::string& key) {
  Session& session = session_of(client);
  const auto held = session.held.find(key);
  if (held == session.held.end()) {
    const Lock* lock = table_.find(space_, key);
    return client.say(lock != nullptr && lock->held() ? "403 not_yours" : "403 not_locked");
  }
  const OwnerId owner = held->second;
  session.held.erase(held);
  client.say("200 Unlocked");
  table_.close(owner);
}

void Server::unlock_all(Client& client) {
  client.say("200 OK");
  const auto held = std::exchange(session_of(client).held, {});
  for (const auto& [key, owner] : held) table_.close(owner);
}

void Server::conn_id(Client& client, const Words& words) {
  if (words.size() == 1) return client.say("200 " + session_of(client).id);
  const std::string id(words[1]);
  const auto known = sessions_.find(id);
  const bool live = known != sessions_.end() && known->second.client != nullptr;
  if (client.session != nullptr || live) return client.say("403 cannot set conn id");
  Session& session = sessions_[id];
  session.id = id;
  session.client = &client;
  client.session = &session;
  loop_.timers.cancel(std::exchange(session.ending, TimerId::kNone));
  client.say("200 conn id set");
}

void Server::set_timeout(Client& client, std::string_view text) {
  const auto most = std::chrono::duration_cast<std::chrono::milliseconds>(limits_.longest_grace);
  const auto grace = parse_number(text, 0, static_cast<uint64_t>(most.count()));
  if (!grace) return client.say("400 Not a number of milliseconds: " + grace.error());
  session_of(client).grace = std::chrono::milliseconds(*grace);
  client.say("200 timeout set");
}

std::string Server::stats() const {
  size_t locks = 0;
  for (const auto& [id, session] : sessions_) locks += session.held.size();
  return "200 STATS\r\nSTAT clients " + std::to_string(clients_.size()) + "\r\nSTAT locks " +
         std::to_string(locks) + "\r\nSTAT monitoring " + std::to_string(sessions_.size()) +
         "\r\nSTAT resumes 1\r\nEND";
}

// A connection has ended; if it holds anything its session stays a while, for it may come again.
void Server::gone(Client& client) {
  loop_.timers.cancel(client.idle);
  client.stream.close();
  if (client.waits_for != OwnerId::kNone) {
    waiting_.erase(client.waits_for);
    table_.close(client.waits_for);
  }
  Session* session = std::exchange(client.session, nullptr);
  if (session != nullptr && session->held.empty()) {
    end(*session);
  } else if (session != nullptr) {
    session->client = nullptr;
    session->ending = loop_.timers.schedule(loop_.timers.now() + session->grace, [this, session] {
      session->ending = TimerId::kNone;
      end(*session);
    });
  }
  // It may be what runs just now.
  auto ended = std::make_shared<std::list<Client>>();
  ended->splice(ended->end(), clients_, client.self);
  loop_.post([ended] { ended->clear(); });
}

void Server::end(Session& session) {
  const auto held = std::move(session.held);
  sessions_.erase(std::string(session.id));
  for (const auto& [key, owner] : held) table_.close(owner);
}

}  // namespace lockfs::elock
