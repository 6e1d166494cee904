// The node's side of the control connection: one thread, one Asio loop, one small state machine per
// connection.
#include <fmt/format.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <set>
#include <thread>

#include "common/net/control.h"
#include "common/net/control_messages.h"
#include "common/net/listen.h"

namespace engram::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(50);  // after running out of descriptors

class Connection;

// What a connection needs of its server. Everything runs on the server's thread.
struct ServerContext {
  ControlServer::Callbacks callbacks;
  std::set<std::shared_ptr<Connection>> connections;
};

// hello -> answer -> silence until either side closes. Shared with the handlers of the operations
// under way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, ServerContext* context)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), context_(context) {}

  void Start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    socket_.set_option(asio::socket_base::keep_alive(true), ignored);
    timer_.expires_after(kHelloTimeout);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->Close();
    });
    asio::async_read(socket_, asio::buffer(prefix_),
                     [self = shared_from_this()](const error_code& error, size_t) {
                       if (error) return self->Close();
                       self->ReadHello();
                     });
  }

  // Idempotent; the session's end is told exactly once.
  void Close() {
    if (closed_) return;
    closed_ = true;
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
    if (session_ != 0) context_->callbacks.on_gone(session_);
    context_->connections.erase(shared_from_this());
  }

 private:
  void ReadHello() {
    const Result<uint32_t> length = FrameLength({prefix_.data(), prefix_.size()});
    if (!length.ok()) return Close();
    // The buffer grows with what arrives, so that a length alone does not take memory.
    asio::async_read(socket_, asio::dynamic_buffer(text_, *length), asio::transfer_exactly(*length),
                     [self = shared_from_this()](const error_code& error, size_t) {
                       if (error) return self->Close();
                       self->Answer();
                     });
  }

  void Answer() {
    const Result<Hello> hello = ParseHello(text_);
    text_.clear();
    text_.shrink_to_fit();
    const Result<Welcome> welcome =
        hello.ok() ? context_->callbacks.on_hello(*hello) : Result<Welcome>(hello.status());
    if (welcome.ok()) session_ = welcome->session;
    answer_ = welcome.ok() ? WelcomeFrame(*welcome) : RefusedFrame(welcome.status());
    asio::async_write(
        socket_, asio::buffer(answer_),
        [self = shared_from_this(), accepted = welcome.ok()](const error_code& error, size_t) {
          if (error || !accepted) return self->Finish();
          self->timer_.cancel();
          self->AwaitEnd();
        });
  }

  // Lets a refusal reach the client before the socket goes: closes our side, then waits for theirs.
  void Finish() {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    AwaitEnd();
  }

  // A client has nothing more to say: a byte ends the connection just as a close does.
  void AwaitEnd() {
    socket_.async_read_some(
        asio::buffer(prefix_),
        [self = shared_from_this()](const error_code&, size_t) { self->Close(); });
  }

  tcp::socket socket_;
  asio::steady_timer timer_;  // for everything up to the answer's last byte
  ServerContext* const context_;
  std::array<char, kFramePrefixBytes> prefix_{};
  std::string text_;
  std::string answer_;
  uint64_t session_ = 0;  // 0 = not welcomed
  bool closed_ = false;
};

class AsioControlServer : public ControlServer {
 public:
  explicit AsioControlServer(Callbacks callbacks)
      : loop_(1), acceptor_(loop_), retry_(loop_), context_{std::move(callbacks), {}} {}

  ~AsioControlServer() override {
    asio::post(loop_, [this] { CloseAllOnLoop(); });
    if (thread_.joinable()) thread_.join();
  }

  Status Open(const std::string& host, uint16_t port) {
    RETURN_IF_ERROR(Listen(acceptor_, host, port, "control connections"));
    error_code error;
    port_ = acceptor_.local_endpoint(error).port();
    AcceptOnLoop();
    thread_ = std::thread([this] { loop_.run(); });
    return OkStatus();
  }

  uint16_t port() const override { return port_; }

 private:
  void AcceptOnLoop() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (closing_) return;
      if (error) return RetryOnLoop();
      if (context_.connections.size() < kControlConnectionsMax) {
        auto connection = std::make_shared<Connection>(std::move(socket), &context_);
        context_.connections.insert(connection);
        connection->Start();
      }
      AcceptOnLoop();
    });
  }

  void RetryOnLoop() {
    retry_.expires_after(kAcceptRetry);
    retry_.async_wait([this](const error_code&) {
      if (!closing_) AcceptOnLoop();
    });
  }

  // Leaves the loop without work, so that run() returns.
  void CloseAllOnLoop() {
    closing_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    const auto connections = context_.connections;  // Close() erases from the set
    for (const auto& connection : connections) connection->Close();
  }

  asio::io_context loop_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  ServerContext context_;
  bool closing_ = false;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Start(const std::string& host, uint16_t port,
                                                            Callbacks callbacks) {
  auto server = std::make_unique<AsioControlServer>(std::move(callbacks));
  RETURN_IF_ERROR(server->Open(host, port));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace engram::net
