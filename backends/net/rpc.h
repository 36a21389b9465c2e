// SPDX-License-Identifier: MIT
#pragma once
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/net/endpoint.h"
#include "backends/net/resolver.h"
#include "backends/outlet.h"
#include "core/event_loop.h"

namespace lockfs::net {

/// The thread that hears from gRPC what became of its operations. Outlives its connections.
class RpcThread {
 public:
  RpcThread();
  /// Waits for what was cancelled; all connections have ended.
  ~RpcThread();
  RpcThread(const RpcThread&) = delete;
  RpcThread& operator=(const RpcThread&) = delete;

  grpc::CompletionQueue& queue() { return queue_; }
  /// What gRPC is to be given with an operation, once: `done` is called on this thread.
  static void* tag(std::function<void(bool ok)> done);

 private:
  struct Settings {
    Settings();
  } settings_;  ///< Before gRPC starts, which it does with its first object.
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

/// A bidirectional stream of messages. All on the loop.
template <class Request, class Response>
class RpcStream : public std::enable_shared_from_this<RpcStream<Request, Response>> {
 public:
  using Received = std::function<void(const Response&)>;
  using Ended = std::function<void(const grpc::Status&)>;

  void write(Request request) {
    out_.push_back(std::move(request));
    if (open_ && out_.size() == 1) write_first();
  }

 private:
  friend class Rpc;
  /// A tag whose end is told to the loop, and which keeps this alive.
  void* told(void (RpcStream::*done)(bool ok)) {
    return RpcThread::tag([self = this->shared_from_this(), done](bool ok) {
      self->outlet_->post([self, done, ok] { ((*self).*done)(ok); });
    });
  }
  void write_first() { stream_->Write(out_.front(), told(&RpcStream::written)); }
  void started(bool ok);
  void read(bool ok);
  void written(bool ok);
  void finished(bool /*ok*/) { ended_(status_); }

  std::shared_ptr<Outlet> outlet_;
  grpc::ClientContext context_;
  Received received_;
  Ended ended_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<Request, Response>> stream_;
  Response in_;
  std::deque<Request> out_;
  bool open_ = false;
  grpc::Status status_;
};

/// A connection of its own to a gRPC server. Calls are made on the loop and answered there; no call
/// waits. When it ends so do its calls, and nothing more is heard of them.
class Rpc {
 public:
  /// It connects with its first call, to this address of the server's. `thread` outlives it.
  Rpc(EventLoop& loop, RpcThread& thread, const Endpoint& server, const Address& address);
  ~Rpc();
  Rpc(const Rpc&) = delete;
  Rpc& operator=(const Rpc&) = delete;

  /// Sent with each call that follows.
  void add_metadata(const std::string& name, const std::string& value) {
    metadata_.emplace_back(name, value);
  }

  /// `done` is called with what became of it, unless this has ended. Of a call that `waits` for
  /// others it is no sign of trouble that it has no answer yet.
  template <class Request, class Response>
  void call(const char* method, const Request& request,
            std::function<void(const grpc::Status&, const Response&)> done, bool waits = false);

  /// A call that goes on when this has ended, but no longer than that: the thread's end waits for
  /// it. Nobody hears what became of it.
  template <class Request, class Response>
  void farewell(const char* method, const Request& request, std::chrono::seconds at_most) {
    auto call = std::make_shared<Call<Request, Response>>();
    call->context.set_deadline(std::chrono::system_clock::now() + at_most);
    call->request = request;
    start(method, call, [call](bool /*ok*/) {});
  }

  template <class Request, class Response>
  std::shared_ptr<RpcStream<Request, Response>> stream(
      const char* method, typename RpcStream<Request, Response>::Received received,
      typename RpcStream<Request, Response>::Ended ended);

  /// Since when the oldest call has had no answer, of those that do not wait.
  std::optional<TimePoint> unanswered_since() const;

  /// Before the first call: `broken` is called once, when the connection that was there is no more,
  /// also while no call is on its way. A call after it goes over another connection.
  void when_broken(std::function<void()> broken);

 private:
  /// What gRPC is to tell of the connection. It may come when this has ended.
  struct Watch {
    std::mutex mutex;
    std::shared_ptr<grpc::Channel> channel;  ///< Null: this has ended.
    std::function<void()> broken;            ///< Posts that.
  };
  static void look(const std::shared_ptr<Watch>& watch, grpc::CompletionQueue& queue);
  struct AnyCall {
    virtual ~AnyCall() = default;
    grpc::ClientContext context;
    grpc::Status status;
    std::optional<TimePoint> since;
  };
  template <class Request, class Response>
  struct Call final : AnyCall {
    Request request;
    Response response;
    std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
  };
  void prepare(grpc::ClientContext& context) const;
  template <class Request, class Response>
  void start(const char* method, const std::shared_ptr<Call<Request, Response>>& call,
             std::function<void(bool ok)> done) {
    prepare(call->context);
    grpc::TemplatedGenericStub<Request, Response> stub(channel_);
    call->reader = stub.PrepareUnaryCall(&call->context, method, call->request, &thread_.queue());
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, RpcThread::tag(std::move(done)));
  }

  RpcThread& thread_;
  std::shared_ptr<Outlet> outlet_;
  std::shared_ptr<grpc::Channel> channel_;
  std::shared_ptr<Watch> watch_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::list<std::shared_ptr<AnyCall>> calls_;
  std::vector<std::pair<std::shared_ptr<void>, grpc::ClientContext*>> streams_;
};

template <class Request, class Response>
void Rpc::call(const char* method, const Request& request,
               std::function<void(const grpc::Status&, const Response&)> done, bool waits) {
  auto call = std::make_shared<Call<Request, Response>>();
  if (!waits) call->since = Clock::now();
  call->request = request;
  const auto place = calls_.insert(calls_.end(), call);
  // It holds no call, and so no channel: what is posted stays there when the loop has ended.
  const auto answered = [this, place, done = std::move(done)] {
    const auto ended = std::static_pointer_cast<Call<Request, Response>>(*place);
    calls_.erase(place);
    done(ended->status, ended->response);  // This may have ended then.
  };
  start(method, call, [outlet = outlet_, call, answered](bool /*ok*/) { outlet->post(answered); });
}

template <class Request, class Response>
std::shared_ptr<RpcStream<Request, Response>> Rpc::stream(
    const char* method, typename RpcStream<Request, Response>::Received received,
    typename RpcStream<Request, Response>::Ended ended) {
  auto stream = std::make_shared<RpcStream<Request, Response>>();
  prepare(stream->context_);
  stream->outlet_ = outlet_;
  stream->received_ = std::move(received);
  stream->ended_ = std::move(ended);
  streams_.emplace_back(stream, &stream->context_);
  grpc::TemplatedGenericStub<Request, Response> stub(channel_);
  stream->stream_ = stub.PrepareCall(&stream->context_, method, &thread_.queue());
  stream->stream_->StartCall(stream->told(&RpcStream<Request, Response>::started));
  return stream;
}

template <class Request, class Response>
void RpcStream<Request, Response>::started(bool ok) {
  if (!ok) return stream_->Finish(&status_, told(&RpcStream::finished));
  open_ = true;
  stream_->Read(&in_, told(&RpcStream::read));
  if (!out_.empty()) write_first();
}

template <class Request, class Response>
void RpcStream<Request, Response>::read(bool ok) {
  if (!ok) {
    open_ = false;
    return stream_->Finish(&status_, told(&RpcStream::finished));
  }
  const Response message = std::move(in_);
  in_ = Response();
  stream_->Read(&in_, told(&RpcStream::read));
  received_(message);  // It may have been given up then.
}

template <class Request, class Response>
void RpcStream<Request, Response>::written(bool ok) {
  out_.pop_front();
  if (ok && open_ && !out_.empty()) write_first();
}

}  // namespace lockfs::net
