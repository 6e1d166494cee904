#include "tests/bench/rows/bare_round_trip.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace engram::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

Status Failed(std::string_view what) {
  return Unavailable(fmt::format("bare round trip, {}: {}", what, std::strerror(errno)));
}

// Two ends of a TCP connection over 127.0.0.1.
Status ConnectPair(int* client, int* server) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool listening = listener >= 0 && bind(listener, any, size) == 0 &&
                         listen(listener, 1) == 0 && getsockname(listener, any, &size) == 0;
  if (listening) {
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*client >= 0 && connect(*client, any, size) == 0) {
      *server = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    }
  }
  const Status status = *server >= 0 ? OkStatus() : Failed("connecting");
  if (listener >= 0) close(listener);
  const int on = 1;
  for (const int fd : {*client, *server}) {
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  return status;
}

// Both poll until everything has moved, `go_on` says no, or the connection fails.
template <typename GoOn>
bool SendAll(int fd, const std::vector<char>& bytes, const GoOn& go_on) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n =
        send(fd, bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<size_t>(n);
    if (n < 0 && ((errno != EAGAIN && errno != EINTR) || !go_on())) return false;
  }
  return true;
}

template <typename GoOn>
bool ReceiveAll(int fd, std::vector<char>& bytes, const GoOn& go_on) {
  size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = recv(fd, bytes.data() + got, bytes.size() - got, MSG_DONTWAIT);
    if (n > 0) got += static_cast<size_t>(n);
    if (n == 0) return false;
    if (n < 0 && ((errno != EAGAIN && errno != EINTR) || !go_on())) return false;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<BareRoundTrip>> BareRoundTrip::Start(size_t request_bytes,
                                                            size_t reply_bytes,
                                                            const Cores& cores) {
  std::unique_ptr<BareRoundTrip> pair(new BareRoundTrip(request_bytes, reply_bytes));
  RETURN_IF_ERROR(ConnectPair(&pair->client_, &pair->server_));
  pair->thread_ = std::thread([raw = pair.get(), cpu = cores.server] { raw->Serve(cpu); });
  return pair;
}

BareRoundTrip::~BareRoundTrip() {
  stop_ = true;
  polling_ = true;
  polling_.notify_one();
  if (thread_.joinable()) thread_.join();
  if (client_ >= 0) close(client_);
  if (server_ >= 0) close(server_);
}

void BareRoundTrip::Serve(int cpu) {
  if (!PinThisThread(cpu).ok()) return;  // the caller pins to the same machine and reports it
  std::vector<char> request(request_.size());
  const auto go_on = [this] { return polling_.load() && !stop_.load(); };
  while (!stop_) {
    polling_.wait(false);
    while (ReceiveAll(server_, request, go_on) &&
           SendAll(server_, reply_, [this] { return !stop_; })) {
    }
  }
}

Result<Round> BareRoundTrip::Run(double seconds, size_t rows) {
  Round round;
  std::vector<char> reply(reply_.size());
  polling_ = true;
  polling_.notify_one();
  const auto start = SteadyClock::now();
  const auto end =
      start + std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
  const auto give_up = end + std::chrono::seconds(5);
  const auto go_on = [&] { return SteadyClock::now() < give_up; };
  bool moved = true;
  while (moved && SteadyClock::now() < end && !Interrupted()) {
    const auto begin = SteadyClock::now();
    moved = SendAll(client_, request_, go_on) && ReceiveAll(client_, reply, go_on);
    round.latency.Record(static_cast<uint64_t>((SteadyClock::now() - begin).count()));
    round.rows += rows;
  }
  round.seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  polling_ = false;
  if (Interrupted()) return Cancelled("interrupted");
  if (!moved) return Failed("a round trip did not end");
  return round;
}

}  // namespace engram::bench
