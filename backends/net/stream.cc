// SPDX-License-Identifier: MIT
#include "backends/net/stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace lockfs::net {
namespace {

// What the kernel waits for an acknowledgement of what was sent, before it says that nobody is
// there: short, for whoever waits for a lock.
constexpr unsigned kUnacknowledged = 5000;  // Milliseconds.
// A connection on which nothing is said is tried after so many seconds, so often.
constexpr int kIdle = 5;
constexpr int kEvery = 2;
constexpr int kTimes = 3;
// An address that does not answer is left for the next one.
constexpr auto kAddressTime = std::chrono::milliseconds(900);

std::string words_of(int error) { return std::strerror(error); }

}  // namespace

Stream::Stream(EventLoop& loop, Events& events)
    : loop_(loop),
      events_(events),
      outlet_(std::make_shared<Outlet>(loop)),
      context_(nullptr, SSL_CTX_free),
      tls_(nullptr, SSL_free) {}

Stream::~Stream() {
  close();
  outlet_->close();
}

void Stream::close() {
  ++opens_;
  loop_.timers.cancel(deadline_);
  tls_.reset();
  if (fd_ >= 0) {
    loop_.unwatch(fd_);
    ::close(fd_);
    fd_ = -1;
  }
  out_.clear();
  watching_writes_ = false;
  state_ = State::kClosed;
}

void Stream::fail(const std::string& why) {
  close();
  events_.closed(why);
}

void Stream::open(const Endpoint& server) {
  close();
  server_ = server;
  state_ = State::kResolving;
  resolve(outlet_, server,
          [this, opens = opens_](std::vector<Address> addresses, const std::string& why) {
            if (opens == opens_) resolved(std::move(addresses), why);
          });
}

void Stream::resolved(std::vector<Address> addresses, const std::string& why) {
  deadline_ = loop_.timers.schedule(loop_.timers.now() + kOpenTime, [this] {
    if (state_ != State::kOpen) fail("it does not answer");
  });
  addresses_ = std::move(addresses);
  std::reverse(addresses_.begin(), addresses_.end());  // The first is taken from the back.
  connect_next(why);
}

void Stream::connect_next(std::string why) {
  while (!addresses_.empty()) {
    const Address address = std::move(addresses_.back());
    addresses_.pop_back();
    if (connect_to(address)) return;
    why = words_of(errno);
  }
  fail(why);
}

bool Stream::connect_to(const Address& address) {
  if (fd_ >= 0) {
    loop_.unwatch(fd_);
    ::close(fd_);
  }
  fd_ = socket(address.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return false;
  if (address.family != AF_UNIX) tune();
  const int result = connect(fd_, reinterpret_cast<const sockaddr*>(address.bytes.data()),
                             static_cast<socklen_t>(address.bytes.size()));
  if (result != 0 && errno != EINPROGRESS) return false;
  state_ = State::kConnecting;
  loop_.watch(fd_, [this] { return ready(); });
  loop_.watch_writes(fd_, true);
  watching_writes_ = true;
  if (addresses_.empty()) return true;  // There is no other.
  outlet_->after(kAddressTime, [this, opens = opens_, left = addresses_.size()] {
    const bool same = opens == opens_ && left == addresses_.size();
    if (same && state_ == State::kConnecting) connect_next("no answer");
  });
  return true;
}

// Small pieces at once; and an end that nobody tells of is noticed.
void Stream::tune() const {
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd_, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd_, IPPROTO_TCP, TCP_KEEPIDLE, &kIdle, sizeof kIdle);
  setsockopt(fd_, IPPROTO_TCP, TCP_KEEPINTVL, &kEvery, sizeof kEvery);
  setsockopt(fd_, IPPROTO_TCP, TCP_KEEPCNT, &kTimes, sizeof kTimes);
  setsockopt(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledged, sizeof kUnacknowledged);
}

void Stream::adopt(int fd, size_t turn) {
  close();
  fd_ = fd;
  turn_ = std::min(turn, kTurn);
  tune();
  state_ = State::kOpen;
  loop_.watch(fd_, [this] { return ready(); });
}

bool Stream::ready() {
  if (state_ == State::kConnecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      connect_next(words_of(error));
    } else {
      connected();
    }
    return true;
  }
  if (state_ == State::kHandshake) return shake_hands();
  if (!out_.empty()) write_some();
  return read_some();
}

void Stream::connected() {
  addresses_.clear();
  if (server_.tls && !start_tls()) return fail(tls_words());
  if (server_.tls) {
    state_ = State::kHandshake;
    shake_hands();
    return;
  }
  state_ = State::kOpen;
  write_some();
  events_.opened();
}

bool Stream::start_tls() {
  ERR_clear_error();
  context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = context_.get();
  if (context == nullptr) return false;
  const Tls& wanted = *server_.tls;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (wanted.verify) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    const bool trusts =
        wanted.ca.empty() ? SSL_CTX_set_default_verify_paths(context) == 1
                          : SSL_CTX_load_verify_locations(context, wanted.ca.c_str(), nullptr) == 1;
    if (!trusts) return false;
  }
  if (!wanted.certificate.empty() &&
      (SSL_CTX_use_certificate_chain_file(context, wanted.certificate.c_str()) != 1 ||
       SSL_CTX_use_PrivateKey_file(context, wanted.key.c_str(), SSL_FILETYPE_PEM) != 1)) {
    return false;
  }
  tls_.reset(SSL_new(context));
  if (tls_ == nullptr || SSL_set_fd(tls_.get(), fd_) != 1) return false;
  const char* host = server_.host.c_str();
  if (!is_number(server_.host)) {
    SSL_set_tlsext_host_name(tls_.get(), const_cast<char*>(host));
    return !wanted.verify || SSL_set1_host(tls_.get(), host) == 1;
  }
  return !wanted.verify || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls_.get()), host) == 1;
}

std::string Stream::tls_words() const {
  const long verdict = tls_ != nullptr ? SSL_get_verify_result(tls_.get()) : X509_V_OK;
  if (verdict != X509_V_OK) return std::string("TLS: ") + X509_verify_cert_error_string(verdict);
  std::array<char, 256> words{};
  const unsigned long error = ERR_get_error();
  if (error == 0) return "TLS: the other side hung up";
  ERR_error_string_n(error, words.data(), words.size());
  return std::string("TLS: ") + words.data();
}

bool Stream::shake_hands() {
  ERR_clear_error();
  const int result = SSL_connect(tls_.get());
  if (result == 1) {
    state_ = State::kOpen;
    write_some();
    events_.opened();
    return true;
  }
  const int error = SSL_get_error(tls_.get(), result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    fail(tls_words());
    return true;
  }
  watching_writes_ = error == SSL_ERROR_WANT_WRITE;
  loop_.watch_writes(fd_, watching_writes_);
  return true;
}

void Stream::send(std::string_view bytes) {
  const bool idle = out_.empty();
  out_ += bytes;
  if (idle) write_some();  // A failure is told by the read that follows.
}

void Stream::write_some() {
  size_t sent = 0;
  while (sent < out_.size()) {
    ssize_t n = 0;
    if (tls_ != nullptr) {
      ERR_clear_error();
      n = SSL_write(tls_.get(), out_.data() + sent,
                    static_cast<int>(std::min<size_t>(out_.size() - sent, 1U << 20U)));
    } else {
      n = ::send(fd_, out_.data() + sent, out_.size() - sent, MSG_NOSIGNAL);
    }
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  out_.erase(0, sent);
  if (watching_writes_ != !out_.empty()) {
    watching_writes_ = !out_.empty();
    loop_.watch_writes(fd_, watching_writes_);
  }
}

bool Stream::read_some() {
  std::array<char, kTurn> buffer;  // NOLINT(*-member-init): read into.
  const uint64_t opens = opens_;
  bool had = false;
  while (opens == opens_) {
    ssize_t n = 0;
    bool later = false;
    std::string why = "it hung up";
    if (tls_ != nullptr) {
      ERR_clear_error();
      n = SSL_read(tls_.get(), buffer.data(), static_cast<int>(buffer.size()));
      const int error = n > 0 ? SSL_ERROR_NONE : SSL_get_error(tls_.get(), static_cast<int>(n));
      later = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
      if (n <= 0 && !later && error != SSL_ERROR_ZERO_RETURN) why = tls_words();
    } else {
      n = recv(fd_, buffer.data(), turn_, 0);
      later = n < 0 && (errno == EAGAIN || errno == EINTR);
      if (n < 0) why = words_of(errno);
    }
    if (later) return had;
    had = true;
    if (n <= 0) {
      fail(why);
      return true;
    }
    events_.received({buffer.data(), static_cast<size_t>(n)});
    if (tls_ == nullptr) return true;  // What is left is told of again, in its turn.
  }
  return had;
}

}  // namespace lockfs::net
