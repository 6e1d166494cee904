#include "common/net/http_service.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <thread>

#include "common/net/http_connection.h"
#include "common/net/listen.h"

namespace engram::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(50);  // after running out of descriptors

class BeastHttpService : public HttpService {
 public:
  BeastHttpService(const HttpLimits& limits, Handler handler, Refusal refusal)
      : shared_{limits, std::move(handler), std::move(refusal), {}},
        loop_(1),
        acceptor_(loop_),
        retry_(loop_) {}

  ~BeastHttpService() override {
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
  bool Idle() override {
    std::promise<bool> idle;
    asio::post(loop_, [&] {
      const HttpConnections& all = shared_.connections;
      idle.set_value(std::none_of(all.begin(), all.end(),
                                  [](const auto& connection) { return connection->busy(); }));
    });
    return idle.get_future().get();
  }
  void Post(std::function<void()> task) override { asio::post(loop_, std::move(task)); }
  void PostAfter(int64_t milliseconds, std::function<void()> task) override {
    asio::post(loop_, [this, milliseconds, task = std::move(task)] {
      if (closing_) return;
      timers_.emplace_back(loop_, std::chrono::milliseconds(milliseconds));
      const auto timer = std::prev(timers_.end());
      timer->async_wait([this, timer, task](const error_code& error) {
        timers_.erase(timer);
        if (!error && !closing_) task();
      });
    });
  }

 private:
  void AcceptOnLoop() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (closing_) return;
      if (error) return RetryOnLoop();
      Take(std::move(socket));
      AcceptOnLoop();
    });
  }

  void Take(tcp::socket socket) {
    HttpConnections& all = shared_.connections;
    // Sockets that say nothing must not keep a health check out.
    const bool full = all.size() >= static_cast<size_t>(shared_.limits.connections);
    const auto idle = std::find_if(all.begin(), all.end(),
                                   [](const auto& connection) { return !connection->busy(); });
    const bool refused = full && idle == all.end();
    if (full && !refused) {
      const std::shared_ptr<HttpConnection> silent = *idle;
      silent->Close();
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto connection = std::make_shared<HttpConnection>(std::move(socket), &shared_);
    all.push_back(connection);
    if (!refused) return connection->ReadRequest();
    connection->Refuse(503, "too many connections are being answered; try again later");
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
    for (asio::steady_timer& timer : timers_) timer.cancel();
    const HttpConnections connections = shared_.connections;  // Close() erases from the list
    for (const auto& connection : connections) connection->Close();
  }

  HttpShared shared_;
  asio::io_context loop_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::list<asio::steady_timer> timers_;
  bool closing_ = false;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpService>> HttpService::Start(const std::string& host, uint16_t port,
                                                        const HttpLimits& limits, Handler handler,
                                                        Refusal refusal) {
  auto service = std::make_unique<BeastHttpService>(limits, std::move(handler), std::move(refusal));
  RETURN_IF_ERROR(service->Open(host, port));
  return std::unique_ptr<HttpService>(std::move(service));
}

HttpResponse PlainRefusal(int status, const std::string& message) {
  return {status, "text/plain; charset=utf-8", message + "\n"};
}

}  // namespace engram::net
