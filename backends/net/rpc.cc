// SPDX-License-Identifier: MIT
#include "backends/net/rpc.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "backends/worker_thread.h"

namespace lockfs::net {
namespace {

using Done = std::function<void(bool ok)>;

// What gRPC says of itself: of what matters here, calls tell.
void log_words(gpr_log_func_args* args) { spdlog::debug("gRPC: {}", args->message); }

std::string file_text(const std::string& path) {
  std::ostringstream text;
  if (!path.empty()) text << std::ifstream(path).rdbuf();
  return text.str();
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const Endpoint& server) {
  if (!server.tls) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(
      {file_text(server.tls->ca), file_text(server.tls->key), file_text(server.tls->certificate)});
}

}  // namespace

RpcThread::Settings::Settings() { gpr_set_log_function(log_words); }

RpcThread::RpcThread() {
  thread_ = worker_thread([this] {
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
      const std::unique_ptr<Done> done(static_cast<Done*>(tag));
      (*done)(ok);
    }
  });
}

RpcThread::~RpcThread() {
  queue_.Shutdown();
  thread_.join();
}

void* RpcThread::tag(Done done) { return std::make_unique<Done>(std::move(done)).release(); }

Rpc::Rpc(EventLoop& loop, RpcThread& thread, const Endpoint& server, const Address& address)
    : thread_(thread), outlet_(std::make_shared<Outlet>(loop)) {
  grpc::ChannelArguments arguments;
  // Else it is one connection with others to the same server, and with what that remembers.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // It pings to measure the way, and servers end connections that ping often.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  // Whatever it is reached by, its certificate is for its name.
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, server.words());
  channel_ = grpc::CreateCustomChannel(address.target(), credentials(server), arguments);
}

Rpc::~Rpc() {
  outlet_->close();
  if (watch_ != nullptr) {
    const std::lock_guard guard(watch_->mutex);
    watch_->channel.reset();
  }
  for (const auto& call : calls_) call->context.TryCancel();
  for (const auto& [stream, context] : streams_) context->TryCancel();
}

std::optional<TimePoint> Rpc::unanswered_since() const {
  for (const auto& call : calls_) {
    if (call->since) return call->since;
  }
  return std::nullopt;
}

void Rpc::when_broken(std::function<void()> broken) {
  watch_ = std::make_shared<Watch>();
  watch_->channel = channel_;
  watch_->broken = [outlet = outlet_, broken = std::move(broken)] { outlet->post(broken); };
  look(watch_, thread_.queue());
}

// From state to state. The end of a channel is one, too: nothing of it stays in the queue.
void Rpc::look(const std::shared_ptr<Watch>& watch, grpc::CompletionQueue& queue) {
  const std::lock_guard guard(watch->mutex);
  if (watch->channel == nullptr) return;
  const grpc_connectivity_state now = watch->channel->GetState(false);
  const auto changed = [watch, &queue, now](bool /*ok*/) {
    now == GRPC_CHANNEL_READY ? watch->broken() : look(watch, queue);
  };
  watch->channel->NotifyOnStateChange(now, std::chrono::system_clock::time_point::max(), &queue,
                                      RpcThread::tag(changed));
}

void Rpc::prepare(grpc::ClientContext& context) const {
  for (const auto& [name, value] : metadata_) context.AddMetadata(name, value);
}

}  // namespace lockfs::net
