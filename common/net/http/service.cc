#include "common/net/http/service.h"

#include <fcntl.h>
#include <malloc.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <thread>
#include <vector>

#include "common/base/threads.h"
#include "common/net/control/fd_passing.h"
#include "common/net/http/connection.h"
#include "common/net/listen.h"

namespace engram::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptRetry = std::chrono::milliseconds(50);  // after running out of descriptors
constexpr size_t kReserved = 16;      // connections beyond the limit, for vital requests
constexpr int kDescriptorsShare = 4;  // at most one of so many is for connections
constexpr int64_t kTrimPeriodMs = 5'000;
constexpr int kTrims = 4;  // until what was made of the last bodies is freed as well
constexpr uint64_t kTrimBytes = 1 << 20;

class BeastHttpService : public HttpService {
 public:
  BeastHttpService(const HttpLimits& limits, Handler handler, Refusal refusal, Admit admit)
      : shared_{limits, std::move(handler), std::move(refusal), std::move(admit)},
        loop_(1),
        acceptor_(loop_),
        retry_(loop_) {
    const auto descriptors = static_cast<int>(DescriptorsMax());
    shared_.limits.connections = std::clamp(limits.connections, 1, descriptors / kDescriptorsShare);
    shared_.released = [this](uint64_t bytes) { ReleasedOnLoop(bytes); };
  }

  ~BeastHttpService() override {
    asio::post(loop_, [this] { CloseAllOnLoop(); });
    if (thread_.joinable()) thread_.join();
  }

  Status Open(const std::string& host, uint16_t port) {
    RETURN_IF_ERROR(Listen(acceptor_, host, port, "HTTP"));
    error_code error;
    acceptor_.non_blocking(true, error);
    port_ = acceptor_.local_endpoint(error).port();
    AcceptOnLoop();
    ASSIGN_OR_RETURN(thread_, StartThread("http", [this] { loop_.run(); }));
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
    if (spare_.get() < 0 && !spare_spent_)
      spare_ = OwnedFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    acceptor_.async_wait(tcp::acceptor::wait_read, [this](const error_code&) {
      if (closing_) return;
      error_code error;
      tcp::socket socket = acceptor_.accept(error);
      if (!error) Take(std::move(socket));
      // Without descriptors accept() fails although none may wait; its answer would be to close
      // one.
      if (error && error != asio::error::would_block && IsReadable(acceptor_.native_handle())) {
        return RetryOnLoop();
      }
      AcceptOnLoop();
    });
  }

  std::vector<Occupant> Occupants(bool reserved) const {
    const TimePoint now = shared_.clock.Now();
    std::vector<Occupant> occupants;
    for (const auto& one : shared_.connections) {
      if (one->reserved() == reserved) occupants.push_back(one->occupant(now));
    }
    return occupants;
  }
  void CloseOne(bool reserved, size_t index) {
    for (const auto& one : shared_.connections) {
      if (one->reserved() != reserved || index-- > 0) continue;
      return std::shared_ptr<HttpConnection>(one)->Close();  // erases it from the list
    }
  }

  void Take(tcp::socket socket) {
    const PeerAddress address = PeerAddressOf(socket.native_handle());
    const bool spent = std::exchange(spare_spent_, false);
    const Place place = spent ? Place{}
                              : FindPlace(Occupants(false), address,
                                          static_cast<size_t>(shared_.limits.connections));
    if (place.leaves) CloseOne(false, *place.leaves);
    if (!place.given) {
      const Place reserved = FindPlace(Occupants(true), address, kReserved);
      if (reserved.leaves) CloseOne(true, *reserved.leaves);
      if (!reserved.given) return;  // closes it
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto connection =
        std::make_shared<HttpConnection>(std::move(socket), &shared_, address, !place.given);
    shared_.connections.push_back(connection);
    connection->ReadRequest();
  }

  // Descriptors have run out. A connection that waits gives its own; without one a spare descriptor
  // lets a vital request in.
  void RetryOnLoop() {
    if (const auto leaves = FirstToLeave(Occupants(false))) {
      CloseOne(false, *leaves);
      return AcceptOnLoop();
    }
    if (spare_.get() >= 0) {
      spare_ = OwnedFd();
      spare_spent_ = true;
      return AcceptOnLoop();
    }
    retry_.expires_after(kAcceptRetry);
    retry_.async_wait([this](const error_code&) {
      if (!closing_) AcceptOnLoop();
    });
  }

  // The allocator would keep for good what many bodies took at once.
  void ReleasedOnLoop(uint64_t bytes) {
    released_bytes_ += bytes;
    if (released_bytes_ < kTrimBytes) return;
    released_bytes_ = 0;
    if (std::exchange(trims_left_, kTrims) == 0) TrimLater();
  }
  void TrimLater() {
    PostAfter(kTrimPeriodMs, [this] {
      ::malloc_trim(0);
      if (--trims_left_ > 0) TrimLater();
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
  OwnedFd spare_;             // given up for a vital request when there is no other
  bool spare_spent_ = false;  // by the connection that is accepted next
  uint64_t released_bytes_ = 0;
  int trims_left_ = 0;
  bool closing_ = false;
  uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpService>> HttpService::Start(const std::string& host, uint16_t port,
                                                        const HttpLimits& limits, Handler handler,
                                                        Refusal refusal, Admit admit) {
  auto service = std::make_unique<BeastHttpService>(limits, std::move(handler), std::move(refusal),
                                                    std::move(admit));
  RETURN_IF_ERROR(service->Open(host, port));
  return std::unique_ptr<HttpService>(std::move(service));
}

HttpResponse PlainRefusal(int status, const std::string& message) {
  return {status, "text/plain; charset=utf-8", message + "\n"};
}

}  // namespace engram::net
