// Fuzzes the HTTP server's connection (common/net/http/connection.h) over socket pairs, on a loop
// of the fuzzer's own.
//
// Input: a byte, then what a client sends. The byte's low 7 bits say how it is cut into packets;
// its highest bit, that the client leaves without reading. Whatever comes is answered by HTTP or
// not at all, the next client is served, and no connection is left.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/net/http/connection.h"

namespace {

using namespace engram;
using namespace engram::net;
namespace asio = boost::asio;

constexpr size_t kPacketStepBytes = 16;
constexpr size_t kPacketsMax = 32;  // each costs system calls
constexpr std::string_view kGoodRequest =
    "POST /good HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

// Small, so that short inputs reach them.
HttpLimits SmallLimits() {
  HttpLimits limits;
  limits.header_bytes = 1024;
  limits.body_bytes = 2048;
  limits.unsent_bytes = 16 * 1024;
  return limits;
}

HttpResponse Refuse(int status, const std::string& message) {
  return {status, "text/plain", message};
}

class Server {
 public:
  Server()
      : shared_{SmallLimits(),
                [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
                  Answer(std::move(request), std::move(reply));
                },
                Refuse} {}

  void Accept(int fd) {
    asio::ip::tcp::socket socket(loop_, asio::ip::tcp::v4(), fd);
    const auto connection = std::make_shared<HttpConnection>(std::move(socket), &shared_);
    shared_.connections.push_back(connection);
    connection->ReadRequest();
  }
  // Does all that can be done without another byte from a client.
  void Run() {
    loop_.restart();
    while (loop_.poll() > 0) {
    }
  }
  size_t connections() const { return shared_.connections.size(); }

 private:
  // The path's second character says how: at once, as a stream, as a stream until it is cut off,
  // later, a stream later, never.
  void Answer(HttpRequest request, std::shared_ptr<HttpReply> reply) {
    reply->OnGone([this] { ++gone_; });
    switch (request.path.size() > 1 ? request.path[1] : 'g') {
      case 's':
        return Stream(request, *reply);
      case 'f':
        reply->StartStream(200, "text/plain", {{"X-Flood", "1"}});
        while (reply->Write(std::string(4000, 'f'))) {
        }
        return reply->Finish();
      case 'l':
        return asio::post(loop_, [request, reply] {
          reply->Send({200, "text/plain", request.method + request.body});
        });
      case 't':
        return asio::post(loop_, [request, reply] { Stream(request, *reply); });
      case 'n':
        return;
      case 'b':  // a stream that is forgotten
        return reply->StartStream(200, "text/plain", {});
      default:
        reply->Send({200, "text/plain", request.body + request.query});
    }
  }
  static void Stream(const HttpRequest& request, HttpReply& reply) {
    reply.StartStream(200, "text/event-stream", {});
    for (size_t at = 0; at < request.body.size(); at += 7) {
      if (!reply.Write(std::string_view(request.body).substr(at, 7))) break;
    }
    reply.Finish();
  }

  asio::io_context loop_;
  HttpShared shared_;
  size_t gone_ = 0;
};

// A client of `server`; closes at its end.
class Client {
 public:
  explicit Client(Server& server) : server_(server) {
    int ends[2] = {-1, -1};
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    fd_ = ends[0];
    server.Accept(ends[1]);
    server.Run();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() {
    close(fd_);
    server_.Run();
  }
  // False when the server has closed.
  bool Send(std::string_view packet) {
    const bool sent = send(fd_, packet.data(), packet.size(), MSG_NOSIGNAL) >= 0;
    server_.Run();
    return sent;
  }
  // All that the server writes while nothing is sent to it.
  std::string Read() {
    std::string text;
    char buffer[4096];
    for (ssize_t got = 1; got > 0; server_.Run()) {
      got = recv(fd_, buffer, sizeof(buffer), 0);
      if (got > 0) text.append(buffer, static_cast<size_t>(got));
    }
    return text;
  }

 private:
  Server& server_;
  int fd_ = -1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t packet_bytes =
      std::max(1 + size_t{data[0] & 0x7fu} * kPacketStepBytes, stream.size() / kPacketsMax + 1);
  const bool reads = (data[0] & 0x80) == 0;
  Server server;
  {
    Client client(server);
    std::string answers;
    for (size_t at = 0; at < stream.size(); at += packet_bytes) {
      if (!client.Send(stream.substr(at, packet_bytes))) break;
      if (reads) answers += client.Read();
    }
    if (reads) answers += client.Read();
    CHECK(answers.empty() || answers.starts_with("HTTP/1.")) << answers;
  }
  CHECK_EQ(server.connections(), 0u);
  {
    Client client(server);
    CHECK(client.Send(kGoodRequest));
    const std::string answer = client.Read();
    CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello")) << answer;
  }
  CHECK_EQ(server.connections(), 0u);
  return 0;
}
