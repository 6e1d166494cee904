#include "common/net/http_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <optional>
#include <thread>

#include "common/net/listen.h"

namespace engram::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(50);  // after running out of descriptors

using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;
using Routes = std::map<std::string, HttpServer::Handler>;

class Connection;
using Connections = std::list<std::shared_ptr<Connection>>;  // the longest without a request first

HttpResponse Route(const Routes& routes, const Request& request) {
  const std::string target(request.target());
  const auto route = routes.find(target.substr(0, target.find('?')));
  if (route == routes.end()) {
    return {404, "text/plain; charset=utf-8", fmt::format("no such path: {}\n", target)};
  }
  if (request.method() != http::verb::get) {
    return {405, "text/plain; charset=utf-8", "only GET is allowed here\n"};
  }
  return route->second();
}

// Reads a request, answers it, reads the next. Shared with the handlers of the operations under
// way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const Routes* routes, Connections* all)
      : stream_(std::move(socket)), routes_(routes), all_(all) {}

  void ReadRequest() {
    parser_.emplace();
    parser_->header_limit(HttpServer::kRequestBytesMax);
    parser_->body_limit(0);  // a GET has none
    stream_.expires_after(std::chrono::seconds(HttpServer::kIdleSecondsMax));
    http::async_read(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](const error_code& error, size_t) { self->OnRequest(error); });
  }

  void Close() {
    stream_.close();
    all_->remove(shared_from_this());
  }

 private:
  void OnRequest(const error_code& error) {
    if (error == http::error::header_limit || error == http::error::body_limit) {
      return Send(
          {413, "text/plain; charset=utf-8",
           fmt::format("request over {} bytes, or with a body\n", HttpServer::kRequestBytesMax)},
          11, false);
    }
    // A parse error is the peer's; anything else (closed, idle too long) needs no answer.
    if (error && error != http::error::end_of_stream && error != http::error::partial_message &&
        error.category() == http::make_error_code(http::error::end_of_stream).category()) {
      return Send({400, "text/plain; charset=utf-8", "not an HTTP request\n"}, 11, false);
    }
    if (error) return Close();
    const Request& request = parser_->get();
    const auto self = std::find(all_->begin(), all_->end(), shared_from_this());
    if (self == all_->end()) return;  // closed while this was on its way
    all_->splice(all_->end(), *all_, self);
    Send(Route(*routes_, request), request.version(), request.keep_alive());
  }

  void Send(HttpResponse answer, unsigned version, bool keep_alive) {
    response_ = Response(static_cast<http::status>(answer.status), version);
    response_.set(http::field::content_type, answer.content_type);
    if (answer.status == 405) response_.set(http::field::allow, "GET");
    response_.body() = std::move(answer.body);
    response_.keep_alive(keep_alive);
    response_.prepare_payload();
    stream_.expires_after(std::chrono::seconds(HttpServer::kIdleSecondsMax));
    http::async_write(stream_, response_,
                      [self = shared_from_this(), keep_alive](const error_code& error, size_t) {
                        if (error) return self->Close();
                        if (keep_alive) return self->ReadRequest();
                        self->Drain();
                      });
  }

  // Closes our side and reads what is still coming for a moment, so that the answer is not lost to
  // a reset.
  void Drain() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    buffer_.clear();
    stream_.expires_after(std::chrono::seconds(1));
    DrainMore(0);
  }

  void DrainMore(size_t so_far) {
    if (so_far > 16 * size_t{HttpServer::kRequestBytesMax}) return Close();
    buffer_.clear();
    stream_.async_read_some(
        buffer_.prepare(HttpServer::kRequestBytesMax),
        [self = shared_from_this(), so_far](const error_code& error, size_t bytes) {
          if (error) return self->Close();
          self->DrainMore(so_far + bytes);
        });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{2 * HttpServer::kRequestBytesMax};
  std::optional<http::request_parser<http::empty_body>> parser_;
  Response response_;
  const Routes* const routes_;
  Connections* const all_;
};

class BeastHttpServer : public HttpServer {
 public:
  explicit BeastHttpServer(Routes routes)
      : routes_(std::move(routes)), loop_(1), acceptor_(loop_), retry_(loop_) {}

  ~BeastHttpServer() override {
    asio::post(loop_, [this] { CloseAllOnLoop(); });
    if (thread_.joinable()) thread_.join();
  }

  Status Open(const std::string& host, uint16_t port) {
    RETURN_IF_ERROR(Listen(acceptor_, host, port, "HTTP"));
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
      // Sockets that say nothing must not keep a health check out.
      if (connections_.size() >= kConnectionsMax) {
        const std::shared_ptr<Connection> silent = connections_.front();
        silent->Close();
      }
      connections_.push_back(
          std::make_shared<Connection>(std::move(socket), &routes_, &connections_));
      connections_.back()->ReadRequest();
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
    const Connections connections = connections_;  // Close() erases from the set
    for (const auto& connection : connections) connection->Close();
  }

  const Routes routes_;
  asio::io_context loop_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  Connections connections_;
  bool closing_ = false;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, uint16_t port,
                                                      std::map<std::string, Handler> routes) {
  auto server = std::make_unique<BeastHttpServer>(std::move(routes));
  RETURN_IF_ERROR(server->Open(host, port));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace engram::net
